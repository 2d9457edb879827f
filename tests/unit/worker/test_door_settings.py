"""The door's settings, and what an admin is told of certificates that end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from factories.certificates import Authority, authority
from factories.commands import install
from factories.runtime import make_settings
from factories.servers import free_port

from dicom_io.sender import Peer, echo
from dicom_io.tls import TlsFiles
from worker.door_settings import certificates, limits_of
from worker.errors import SettingsError
from worker.service import Role, Service
from worker.settings import Settings, load_settings


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


def section(files: TlsFiles) -> dict[str, str]:
    return {
        "certificate_file": str(files.certificate),
        "key_file": str(files.key),
        "ca_file": str(files.ca),
    }


def test_limits_are_those_of_the_file(tmp_path: Path) -> None:
    door = {"maximum_associations": 7, "maximum_per_caller": 3, "maximum_object_mb": 2, "association_s": 9}
    limits = limits_of(make_settings(tmp_path, listener=door).listener)

    assert (limits.associations, limits.associations_per_caller) == (7, 3)
    assert (limits.object_bytes, limits.association_s) == (2_000_000, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tls]\ncertificate_file = "a"', "[tls] has one of certificate_file and key_file; give both"),
        ('[listener]\ntls = "server"', "needs [tls] certificate_file and key_file"),
        (
            '[listener]\ntls = "required"\n[tls]\ncertificate_file = "a"\nkey_file = "b"',
            "needs [tls] ca_file, to check callers' certificates",
        ),
        (
            '[[destination]]\nname = "p"\nae_title = "P"\nhost = "h"\nport = 1\ntls = true',
            "[[destination]] 'p' has tls = true and needs [tls] ca_file",
        ),
    ],
)
def test_what_tls_lacks_is_said_at_start(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "fundus.toml"
    path.write_text(text)

    with pytest.raises(SettingsError) as caught:
        load_settings(path, {}, {})

    assert said in str(caught.value)


def test_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "fundus.toml"
    path.write_text('[tls]\ncertificate_file = "own.crt"\nkey_file = "own.key"\n')

    assert load_settings(path, {}, {}).tls.certificate_file == tmp_path / "own.crt"


def test_thirty_days_ahead_a_certificate_is_a_problem(tmp_path: Path, ca: Authority) -> None:
    settings = Settings.model_validate({"tls": section(ca.issue("worker", days=90))})
    now = datetime.now(UTC)

    problems = [
        [each.problem for each in certificates(settings, now + timedelta(days=days)) if each.problem]
        for days in (0, 59, 61, 91)
    ]

    assert [len(each) for each in problems] == [0, 0, 1, 1]
    assert "[tls] certificate_file) expires on" in problems[2][0]
    assert "expired on" in problems[3][0]


def test_status_and_check_warn_of_a_certificate_that_ends_soon(tmp_path: Path, ca: Authority) -> None:
    files = section(ca.issue("soon", days=20))
    installed = install(tmp_path, tls=files, listener={"tls": "required", "port": free_port()})
    with installed.rows():
        pass

    status, check = installed.run("status"), installed.run("check")

    for answer in (status, check):
        assert answer.status == 1
        assert "soon.crt ([tls] certificate_file) expires on" in answer.words
        assert "replace it and restart the worker" in answer.words
    assert "RED tls" in check.words


def test_a_certificate_that_is_gone_is_named(tmp_path: Path, ca: Authority) -> None:
    files = {**section(ca.issue("worker")), "certificate_file": str(tmp_path / "gone.crt")}
    installed = install(tmp_path, tls=files, listener={"tls": "server", "port": free_port()})

    answer = installed.run("check")

    assert "RED tls" in answer.words
    assert "gone.crt" in answer.words


def test_a_service_speaks_tls_and_logs_what_ends_soon(tmp_path: Path, ca: Authority) -> None:
    files = ca.issue("ending", days=10)
    settings = make_settings(tmp_path, tls=section(files), listener={"tls": "required", "port": 0})
    service = Service(settings, Role.SERVE)
    with structlog.testing.capture_logs() as logs:
        service.start()
    assert service.listener is not None
    try:
        port = service.listener.port
        assert echo(Peer("FUNDUS", "127.0.0.1", port, "CAMERA", 20, files)).ok
        assert not echo(Peer("FUNDUS", "127.0.0.1", port, "CAMERA", 20)).ok
    finally:
        assert service.stop()
    assert any(
        each["event"] == "certificate_expires" and each["setting"] == "certificate_file" for each in logs
    )
