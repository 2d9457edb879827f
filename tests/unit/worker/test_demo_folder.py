from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.demo.configuration import worker_environment, write_configuration
from worker.demo.errors import DemoSetupError
from worker.demo.folder import demo_folder
from worker.settings import load_settings


def test_the_folder_is_made_with_everything_in_it(tmp_path: Path) -> None:
    with demo_folder(tmp_path / "a" / "b") as folder:
        for each in (folder.data, folder.logs, folder.photographs, folder.pacs):
            assert each.is_dir()
            assert each.parent == tmp_path / "a" / "b"


def test_a_second_run_clears_what_the_first_left_and_nothing_else(tmp_path: Path) -> None:
    with demo_folder(tmp_path) as folder:
        (folder.pacs / "2.25.1.dcm").touch()
        folder.contact_sheet.touch()
        (tmp_path / "notes.txt").touch()

    with demo_folder(tmp_path) as folder:
        assert not list(folder.pacs.iterdir())
        assert not folder.contact_sheet.exists()
        assert (tmp_path / "notes.txt").exists()


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").touch()

    with pytest.raises(DemoSetupError, match="choose another --output"), demo_folder(tmp_path):
        pass

    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_a_file_in_its_place_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DemoSetupError, match="cannot be used"), demo_folder(tmp_path / "file"):
        pass


def test_two_demonstrations_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        demo_folder(tmp_path),
        pytest.raises(DemoSetupError, match="another demonstration is running"),
        demo_folder(tmp_path),
    ):
        pass

    with demo_folder(tmp_path):
        pass


def test_the_configuration_is_what_the_worker_reads(tmp_path: Path) -> None:
    with demo_folder(tmp_path / 'with "quotes" and ä') as folder:
        write_configuration(folder, listener_port=20001, pacs_port=20002)
        settings = load_settings(folder.configuration, environ={})

        assert settings.data_dir == folder.data
        assert settings.listener.port == 20001
        assert settings.listener.host == "127.0.0.1"
        assert [(each.host, each.port) for each in settings.destinations] == [("127.0.0.1", 20002)]
        assert settings.study.close_on == "association"
        assert not settings.distributed


def test_with_a_broker_the_processes_share_a_key_of_their_own(tmp_path: Path) -> None:
    with demo_folder(tmp_path) as folder:
        url = "redis://127.0.0.1:20003/0"
        write_configuration(folder, listener_port=20001, pacs_port=20002, broker_url=url)
        settings = load_settings(folder.configuration, environ={})

        assert settings.broker_url == url
        assert settings.resolved_identity_key_file == folder.identity_key
        assert folder.identity_key.stat().st_mode & 0o777 == 0o600


def test_only_the_choice_of_models_comes_from_the_environment() -> None:
    environ = {
        "PATH": os.defpath,
        "FUNDUS_BUNDLE": "mine",
        "FUNDUS_DATABASE_URL": "postgresql://real-data",
        "FUNDUS_LISTENER__PORT": "104",
    }

    assert worker_environment(environ) == {"PATH": os.defpath, "FUNDUS_BUNDLE": "mine"}
