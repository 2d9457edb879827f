"""What `[[caller]]` means for an image, its study and its reports. Who sent an image is in its row."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from worker.settings import CallerSettings, CameraSettings, Destination, Settings

_PRIORITIES = {"high": 1, "medium": 2, "low": 3}
"""As (0000,0700) is understood: 0 (at once) to 3 (any time)."""


def policy_of(settings: Settings, calling_ae: str) -> CallerSettings | None:
    """Return the table of a caller; None when it has none."""
    return next((each for each in settings.callers if each.ae_title == calling_ae), None)


def priority_of(settings: Settings, calling_ae: str) -> int:
    """Return the priority of a caller's images, 0 (at once) to 3 (any time), where they do not say one."""
    policy = policy_of(settings, calling_ae)
    return _PRIORITIES["medium" if policy is None else policy.priority]


def camera_settings(settings: Settings, calling_ae: str) -> CameraSettings:
    """Return the `[camera]` policies as they hold for images of a caller."""
    policy = policy_of(settings, calling_ae)
    if policy is None or not policy.camera_opt_in:
        return settings.camera
    return settings.camera.model_copy(update={"opt_in": (*settings.camera.opt_in, *policy.camera_opt_in)})


def report_inputs(settings: Settings, sent_by: Mapping[str, str]) -> dict[str, object]:
    """Return what a report follows from because of who sent the images; nothing where it makes no difference.

    Args:
        settings: The configuration.
        sent_by: Calling AE title by SOP instance UID.
    """
    policies = {name: policy_of(settings, name) for name in sorted(set(sent_by.values()))}
    granted = {name: sorted(each.camera_opt_in) for name, each in policies.items() if each is not None}
    granted = {name: keys for name, keys in granted.items() if keys}
    concerned = {uid: name for uid, name in sent_by.items() if name in granted}
    return {"caller_opt_in": [granted, concerned]} if granted else {}


def destinations_of(
    settings: Settings, calling_aes: Collection[str], holding: Collection[str]
) -> list[Destination]:
    """Return where the report of a study goes.

    Args:
        settings: The configuration.
        calling_aes: Who sent the study's images.
        holding: Names of destinations that were sent an earlier revision: they get what replaces it.
    """
    return [
        each
        for each in settings.destinations
        if each.name in holding or any(goes_to(settings, name, each.name) for name in calling_aes)
    ]


def goes_to(settings: Settings, calling_ae: str, destination: str) -> bool:
    """Whether reports of what a caller sends go to a destination."""
    policy = policy_of(settings, calling_ae)
    return policy is None or not policy.destinations or destination in policy.destinations


def kept_from(settings: Settings, destination: str) -> list[str]:
    """Return the callers whose reports do not go to a destination."""
    names = [each.ae_title for each in settings.callers]
    return [name for name in names if not goes_to(settings, name, destination)]
