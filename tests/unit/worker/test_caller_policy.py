"""`[[caller]]` in the configuration: what is refused, what it means, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories.commands import install
from factories.runtime import make_settings
from factories.servers import free_port

from dicom_io.refusals import CALLER_ADDRESS, CALLING_AE
from worker.caller_policy import camera_settings, destinations_of, kept_from, priority_of, report_inputs
from worker.door_settings import allowed_callers, caller_rules
from worker.errors import SettingsError
from worker.settings import Settings, load_settings

PACS = [
    {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "port": 11113} for name in ("pacs", "eyes")
]
CLINIC = {
    "ae_title": "CLINIC",
    "hosts": ["10.1.0.0/16", "192.168.7.4"],
    "priority": "high",
    "destinations": ["eyes"],
    "camera_opt_in": ["third"],
    "maximum_associations": 3,
    "requests_per_minute": 60,
    "maximum_object_mb": 20,
}


def settings_with(tmp_path: Path, *callers: dict[str, Any], **tables: Any) -> Settings:
    return make_settings(tmp_path, caller=list(callers), destination=PACS, **tables)


def said(tmp_path: Path, text: str) -> str:
    path = tmp_path / "fundus.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {}, {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[caller]]\nhosts = ["10.0.0.1"]', "[[caller]] number 1: ae_title is missing; add it"),
        ('[[caller]]\nae_title = "A"\nhost = "10.0.0.1"', "host is not a setting; did you mean hosts?"),
        (
            '[[caller]]\nae_title = "A"\nhosts = ["10.1.2.3/16"]',
            "'10.1.2.3/16' is no address or network (has host bits set); write 10.1.2.3 or 10.1.0.0/16",
        ),
        ('[[caller]]\nae_title = "A"\nhosts = ["camera.local"]', "'camera.local' is no address or network"),
        ('[[caller]]\nae_title = "A"\npriority = "urgent"', "expected 'high', 'medium' or 'low'"),
        ('[[caller]]\nae_title = "A\\\\B"', "is no AE title"),
        (
            '[[caller]]\nae_title = "A"\n[[caller]]\nae_title = "A"',
            "[[caller]] ae_title 'A' is there more than once; put its hosts into one table",
        ),
        (
            '[listener]\nallowed_callers = ["A"]\n[[caller]]\nae_title = "A"\nallowed = false',
            "[[caller]] 'A' has allowed = false and is in [listener] allowed_callers; keep one or the other",
        ),
        (
            '[[caller]]\nae_title = "A"\ndestinations = ["pcas"]\n'
            '[[destination]]\nname = "pacs"\nae_title = "P"\nhost = "h"\nport = 1',
            "[[caller]] 'A' destinations: there is no [[destination]] 'pcas'; did you mean 'pacs'?",
        ),
        ('[[caller]]\nae_title = "A"\nmaximum_associations = 0', "maximum_associations"),
        (
            '[listener]\nhost = "0.0.0.0"\n[[caller]]\nae_title = "A"\nallowed = false',
            "allowed_callers is empty; name the AE titles that may send, there or as [[caller]]",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in said(tmp_path, text)


def test_on_a_network_a_named_caller_is_enough(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, CLINIC, listener={"host": "0.0.0.0"})  # noqa: S104 - the case

    assert allowed_callers(settings) == ()


def test_on_loopback_a_ban_alone_keeps_nobody_else_out(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, {"ae_title": "NOISY", "allowed": False})

    assert allowed_callers(settings) == ("*",)


def test_rules_are_those_of_the_file(tmp_path: Path) -> None:
    from dicom_io.callers import Callers

    settings = settings_with(tmp_path, CLINIC, {"ae_title": "NOISY", "allowed": False})
    callers = Callers(("*",), caller_rules(settings))

    assert callers.refusal("CLINIC", "10.1.255.1") is None
    assert callers.refusal("CLINIC", "::ffff:192.168.7.4") is None
    assert callers.refusal("CLINIC", "192.168.7.5") is CALLER_ADDRESS
    assert callers.refusal("CLINIC", "fe80::1%eth0") is CALLER_ADDRESS
    assert callers.refusal("NOISY", "10.1.2.3") is CALLING_AE
    assert callers.refusal("OTHER", "10.1.2.3") is None
    limits = callers.limits("CLINIC")
    assert limits is not None
    assert (limits.associations_per_caller, limits.requests_per_minute, limits.object_bytes) == (
        3,
        60,
        20_000_000,
    )
    assert callers.limits("NOISY") is None


def test_policies_hold_for_their_caller_only(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, CLINIC, camera={"opt_in": ["second"]})

    assert [priority_of(settings, name) for name in ("CLINIC", "OTHER")] == [1, 2]
    assert camera_settings(settings, "CLINIC").opt_in == ("second", "third")
    assert camera_settings(settings, "OTHER").opt_in == ("second",)
    assert report_inputs(settings, {"1.2": "OTHER"}) == {}
    assert report_inputs(settings, {"1.2": "OTHER", "1.3": "CLINIC"}) != {}


@pytest.mark.parametrize(
    ("callers", "holding", "names"),
    [
        ({"OTHER"}, [], ["pacs", "eyes"]),
        ({"CLINIC"}, [], ["eyes"]),
        ({"CLINIC", "OTHER"}, [], ["pacs", "eyes"]),
        ({"CLINIC"}, ["pacs"], ["pacs", "eyes"]),
        ({"CLINIC"}, ["gone"], ["eyes"]),
    ],
)
def test_reports_go_where_their_images_come_from(
    tmp_path: Path, callers: set[str], holding: list[str], names: list[str]
) -> None:
    settings = settings_with(tmp_path, CLINIC)

    assert [each.name for each in destinations_of(settings, callers, holding)] == names
    assert (kept_from(settings, "pacs"), kept_from(settings, "eyes")) == (["CLINIC"], [])


def test_check_and_status_show_the_callers(tmp_path: Path) -> None:
    installed = install(tmp_path, listener={"port": free_port()})
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in CLINIC.items() if key != "destinations")
    with installed.config.open("a") as file:
        file.write(f'\n[[caller]]\n{keys}\n[[caller]]\nae_title = "NOISY"\nallowed = false\n')
    with installed.rows():
        pass

    check, status = installed.run("check"), installed.run("status")
    listed = json.loads(installed.run("status", "--json").out)

    for answer in (check, status):
        assert "CLINIC from 10.1.0.0/16, 192.168.7.4, priority high, also cameras third" in answer.words
        assert "at most 3 associations, 60 requests a minute, objects of 20 MB" in answer.words
        assert "NOISY never" in answer.words
    assert [each["ae_title"] for each in listed["callers"]] == ["CLINIC", "NOISY"]
    assert listed["other_callers"] == []
