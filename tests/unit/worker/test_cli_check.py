from __future__ import annotations

import json
import os
import shutil
import socket
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from factories.commands import Installation, install, run
from factories.runtime import receiving_pacs
from factories.servers import free_port
from sqlalchemy.exc import OperationalError

from dicom_io import camera
from models.bundle import Bundle
from worker import database


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


def red(installed: Installation, **env: str | None) -> dict[str, str]:
    """The red findings, by name."""
    answer = installed.run("check", "--json", env=env)
    found = {each["name"]: each["detail"] for each in json.loads(answer.out) if not each["ok"]}
    assert answer.status == (1 if found else 0)
    return found


def test_all_green_before_the_first_start_and_nothing_is_left_behind(tmp_path: Path) -> None:
    # Given
    with receiving_pacs() as pacs:
        installed = install(tmp_path, pacs_port=pacs.port)
        before = sorted(tmp_path.rglob("*"))
        # When
        answer = installed.run("check")
    # Then
    assert answer.status == 0, answer.words
    assert "RED" not in answer.out
    assert "identity.key will be made at the first start" in answer.words
    assert "fundus.db will be made at the first start" in answer.words
    assert f"destination pacs: PACS at 127.0.0.1:{pacs.port}" in answer.words
    assert sorted(tmp_path.rglob("*")) == before


def test_red_ones_are_named_again_at_the_end_with_exit_status_1(installed: Installation) -> None:
    answer = installed.run("check")
    assert answer.status == 1
    assert "RED destination pacs: PACS at 127.0.0.1" in answer.words
    assert "PEER_UNREACHABLE" in answer.words
    assert "Check address, port, network and that the destination runs" in answer.words
    assert answer.out.rstrip().endswith("1 of 9 red: destination pacs")


def test_the_example_is_toml_and_the_defaults() -> None:
    answer = run("check", "--example")
    assert answer.status == 0
    assert tomllib.loads(answer.out).get("listener") == {}
    for key in ("# data_dir", "# ae_title", "# [[destination]]"):
        assert key in answer.out


def test_a_configuration_with_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[listener]\nprot = 1\n[study]\nquiet_s = "soon"\n')
    answer = run("check", "--config", file)
    assert answer.status == 2
    assert "[listener] prot is not a setting; did you mean port?" in answer.err
    assert "[study] quiet_s" in answer.err
    assert "Traceback" not in answer.err


def test_a_configuration_file_that_is_not_named_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fundus.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    answer = run("status", env={"FUNDUS_CONFIG": None})
    assert "note: fundus.toml in this folder is not used; say --config fundus.toml" in answer.err


def test_no_destination(installed: Installation) -> None:
    installed.config.write_text(installed.config.read_text().partition("[[destination]]")[0])
    assert red(installed) == {
        "destinations": "none is configured: add a [[destination]], or serve --no-delivery"
    }


def test_models_that_are_not_there(installed: Installation) -> None:
    text = installed.config.read_text().replace("./bundle", "./nowhere")
    installed.config.write_text(text)
    assert "no such folder" in red(installed)["models"]


def test_a_spool_that_is_not_mounted(installed: Installation) -> None:
    # Given a database with an image, and a spool without its marker
    with installed.rows() as rows:
        namespace = rows.installation()
        rows.image(rows.study())
    found = red(installed)["spool"]
    assert "Mount the spool, or correct data_dir" in found
    # When the marker is there
    spool = installed.data / "spool"
    spool.mkdir()
    (spool / "installation").write_text(f"{namespace}\n")
    # Then it is green
    assert "spool" not in red(installed)
    # And another installation's is not
    (spool / "installation").write_text("another\n")
    assert "belongs to another installation" in red(installed)["spool"]


def test_camera_rules_that_cannot_be_read(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: 3\n")
    installed = install(tmp_path, camera={"rules_file": str(rules)})
    assert str(rules) in red(installed)["camera rules"]
    rules.unlink()
    assert str(rules) in red(installed)["camera rules"]


def test_own_camera_rules_are_named(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    shutil.copy(Path(camera.__file__).with_name("camera_rules.yaml"), rules)
    installed = install(tmp_path, camera={"rules_file": str(rules)})
    assert f"ok camera rules: {rules}, digest" in installed.run("check").words


def test_an_identity_key_that_others_can_read(installed: Installation) -> None:
    installed.data.mkdir()
    key = installed.data / "identity.key"
    key.write_text("k" * 64)
    key.chmod(0o644)
    assert f"run `chmod 600 {key}`" in red(installed)["identity key"]
    key.chmod(0o600)
    assert "identity key" not in red(installed)


def test_a_port_that_something_else_holds(installed: Installation) -> None:
    with socket.create_server(("127.0.0.1", installed.port)) as server:
        server.settimeout(0)
        found = red(installed, FUNDUS_DELIVERY__TIMEOUT_S="1")
    assert "cannot be listened on (Address already in use): stop what holds it" in found["port"]


def test_a_port_that_our_own_listener_holds(tmp_path: Path) -> None:
    with receiving_pacs() as listener:
        installed = install(tmp_path, listener={"ae_title": "FUNDUS", "port": listener.port})
        answer = installed.run("check")
    assert f"ok port: 127.0.0.1:{listener.port} is served by a running FUNDUS" in answer.words


def test_a_host_without_an_address(tmp_path: Path) -> None:
    installed = install(tmp_path, listener={"host": "::1:9", "allowed_callers": ["*"]})
    assert "choose another [listener] host or port" in red(installed)["port"]


def test_a_broker_that_does_not_answer(installed: Installation, tmp_path: Path) -> None:
    key = tmp_path / "shared.key"
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    env = {
        "FUNDUS_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
        "FUNDUS_IDENTITY_KEY_FILE": str(key),
    }
    assert "the broker does not answer" in red(installed, **env)["broker"]


def test_a_database_that_is_away(installed: Installation, tmp_path: Path) -> None:
    key = tmp_path / "shared.key"
    key.touch(mode=0o600)
    key.write_text("k" * 64)
    env = {
        "FUNDUS_DATABASE_URL": f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/x",
        "FUNDUS_IDENTITY_KEY_FILE": str(key),
    }
    detail = red(installed, **env)["database"]
    assert "check database_url, and that the server runs" in detail
    assert "secret" not in detail


def test_a_database_file_that_is_none(installed: Installation) -> None:
    installed.data.mkdir()
    (installed.data / "fundus.db").write_text("nonsense " * 200)
    assert "no connection to the database" in red(installed)["database"]


def test_an_embedded_database_of_an_older_release_is_left_to_the_next_start(installed: Installation) -> None:
    # Given
    engine = installed.engine()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    engine.dispose()
    # When
    answer = installed.run("check")
    # Then
    assert "ok database: sqlite, schema will be brought up to date at the next start" in answer.words
    engine = database.create_database_engine(f"sqlite:///{installed.data / 'fundus.db'}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    engine.dispose()


def test_commits_that_may_be_lost(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "pragma_problems", lambda _: ["journal is off", "sync is off"])
    assert red(installed)["database"] == "journal is off; sync is off"


def test_a_database_that_fails_in_the_middle_of_the_check(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("cut"))

    monkeypatch.setattr(database, "pragma_problems", fail)
    assert red(installed)["database"] == "OperationalError; check database_url and that the server runs"


def test_models_that_may_not_be_read(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/models/x")

    monkeypatch.setattr(Bundle, "load", fail)
    assert red(installed)["models"].startswith("/models/x: Permission denied; check that it is there")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 100_000_000))
    installed = install(tmp_path, spool={"reserve_mb": 512})
    assert "100 MB free" in red(installed)["disk"]
    assert "below the reserve of 512 MB" in red(installed)["disk"]


def test_a_folder_that_cannot_be_written(installed: Installation) -> None:
    # Given a folder in which even root can make nothing
    found = red(installed, FUNDUS_DATA_DIR="/proc/fundus")
    assert "/proc cannot be written" in found["disk"]
    assert "no database can be made in /proc" in found["database"]
    for name in ("disk", "database"):
        assert "give it to the user of the service, or change data_dir" in found[name]


def test_somebody_elses_folder(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.data.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: installed.data.stat().st_uid + 1)
    assert "run this check as the user of the service" in installed.run("check").words
