from __future__ import annotations

import pytest

from dicom_io.camera import CameraMatch
from worker.routing import Route, choose_route, judge
from worker.settings import CameraPolicy, CameraSettings

FUNDUS = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
WIDE = "1.2.840.10008.5.1.4.1.1.77.1.5.5"


@pytest.mark.parametrize(
    ("camera", "exact", "route", "adapter"),
    [
        ("kowa-vx-10", True, Route.LABELLED, None),
        ("kowa-vx-10", False, Route.KNOWN, None),
        ("other", True, Route.ADAPTED, "other"),
        ("other", False, Route.KNOWN, None),
        ("third", True, Route.KNOWN, None),
        (None, False, Route.UNKNOWN, None),
    ],
)
def test_only_an_exact_match_leads_to_the_classifier(
    camera: str | None, exact: bool, route: Route, adapter: str | None
) -> None:
    assert choose_route(CameraMatch(camera, exact, None), "kowa-vx-10", ["other"]) == (route, adapter)


@pytest.mark.parametrize("route", [Route.LABELLED, Route.ADAPTED])
def test_a_validated_camera_is_reported(route: Route) -> None:
    verdict = judge(route, "kowa-vx-10", FUNDUS, CameraSettings())
    assert (verdict.policy, verdict.reason_code, verdict.unvalidated) == ("classify", None, False)


@pytest.mark.parametrize("route", [Route.KNOWN, Route.UNKNOWN])
@pytest.mark.parametrize(
    ("policy", "reason", "unvalidated"),
    [
        ("withhold", "CAMERA_NOT_VALIDATED", False),
        ("refuse", "CAMERA_REFUSED", False),
        ("classify", None, True),
    ],
)
def test_the_policy_decides_on_any_other(
    route: Route, policy: CameraPolicy, reason: str | None, unvalidated: bool
) -> None:
    settings = CameraSettings(without_adapter=policy, unknown=policy)
    verdict = judge(route, "third" if route is Route.KNOWN else None, FUNDUS, settings)
    assert (verdict.policy, verdict.reason_code, verdict.unvalidated) == (policy, reason, unvalidated)


def test_a_camera_may_be_opted_in_by_name() -> None:
    settings = CameraSettings(opt_in=("third",))
    assert judge(Route.KNOWN, "third", FUNDUS, settings).unvalidated
    assert judge(Route.KNOWN, "fourth", FUNDUS, settings).policy == "withhold"
    assert judge(Route.UNKNOWN, None, FUNDUS, settings).policy == "withhold"


def test_of_two_policies_the_stricter_holds() -> None:
    wide = judge(Route.LABELLED, "kowa-vx-10", WIDE, CameraSettings())
    assert (wide.policy, wide.reason_code) == ("withhold", "WIDE_FIELD_NOT_VALIDATED")
    settings = CameraSettings(unknown="classify", wide_field="refuse")
    assert judge(Route.UNKNOWN, None, WIDE, settings).policy == "refuse"
