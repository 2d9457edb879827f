"""What is away for a while: the PACS, the process itself, room on the disk. Work resumes by itself."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from factories.dcmtk import storescp_process
from factories.photographs import SentStudy, camera_strings, write_studies
from factories.process import Worker, bundle_to_test, worker
from factories.received_reports import account, received_reports
from factories.servers import free_port
from factories.storescu import PersistentSenders, send_in_parallel, send_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dcmtk,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("outages"),
]
MEGABYTE = 1_000_000
STUDIES = int(os.environ.get("FUNDUS_TEST_STUDIES", "6"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return bundle_to_test(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def studies(bundle: Path | str, tmp_path: Path) -> list[SentStudy]:
    return write_studies(tmp_path / "studies", STUDIES, camera_strings(bundle))


def uids(studies: list[SentStudy]) -> list[str]:
    return [photograph.sop_instance_uid for study in studies for photograph in study.photographs]


def failed_deliveries(served: Worker, reason_code: str) -> int:
    statement = "SELECT count(*) FROM v_deliveries WHERE state = 'PENDING' AND reason_code = ?"
    return served.count(statement, reason_code)


def test_every_report_arrives_once_when_the_pacs_was_down(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    port = free_port()
    with worker(tmp_path / "worker", bundle=bundle, pacs_port=port) as served:
        sendings = send_in_parallel(served.port, studies)
        assert all(sending.status == 0 for sending in sendings)
        served.wait_for(
            lambda: failed_deliveries(served, "PEER_UNREACHABLE") == STUDIES,
            lambda: f"{STUDIES} reports to wait for the PACS, not {served.backlog()}",
        )

        with storescp_process(tmp_path / "pacs", port=port) as pacs:
            served.wait_drained()

            accounts = account(served, uids(studies), pacs.files())
            assert accounts.problems == ()
            assert (accounts.reports_received, accounts.copies) == (STUDIES, 0)


def test_a_pacs_that_stops_answering_gets_every_report_once_it_is_back(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    port = free_port()
    delivery = {"timeout_s": 1}
    with worker(tmp_path / "worker", bundle=bundle, pacs_port=port, delivery=delivery) as served:
        with silent_server(port):
            send_in_parallel(served.port, studies)
            served.wait_for(
                lambda: failed_deliveries(served, "CONNECTION_LOST") == STUDIES,
                lambda: f"{STUDIES} reports to wait for the PACS, not {served.backlog()}",
            )

        with storescp_process(tmp_path / "pacs", port=port) as pacs:
            served.wait_drained()

            accounts = account(served, uids(studies), pacs.files())
            assert accounts.problems == ()
            assert (accounts.reports_received, accounts.copies) == (STUDIES, 0)


def test_a_pacs_that_goes_down_between_two_studies_misses_none(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    port = free_port()
    half = len(studies) // 2
    with worker(tmp_path / "worker", bundle=bundle, pacs_port=port) as served:
        with storescp_process(tmp_path / "pacs", port=port):
            send_in_parallel(served.port, studies[:half])
            served.wait_drained()
        send_in_parallel(served.port, studies[half:])
        served.wait_for(
            lambda: failed_deliveries(served, "PEER_UNREACHABLE") == STUDIES - half,
            lambda: f"{STUDIES - half} reports to wait for the PACS, not {served.backlog()}",
        )
        with storescp_process(tmp_path / "pacs", port=port) as pacs:
            served.wait_drained()

            accounts = account(served, uids(studies), pacs.files())
            assert accounts.problems == ()
            assert (accounts.reports_received, accounts.copies) == (STUDIES, 0)


def test_sigterm_in_the_middle_of_work_ends_with_status_0_and_a_restart_finishes(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    with (
        storescp_process(tmp_path / "pacs") as pacs,
        worker(tmp_path / "worker", bundle=bundle, pacs_port=pacs.port) as served,
        PersistentSenders(served.port) as senders,
    ):
        senders.offer(studies)
        served.wait_for(lambda: served.events("object_stored"), "the first object to be stored")
        status = served.terminate()
        left_over = served.query("SELECT id FROM processes WHERE stopped_at IS NULL")
        claimed = served.count("SELECT count(*) FROM instances WHERE claim_token IS NOT NULL")
        served.start()
        served.wait_for(lambda: not senders.outstanding, lambda: f"{senders.outstanding} studies to be taken")
        served.wait_drained()

        assert (status, left_over, claimed) == (0, [], 0)
        accounts = account(served, senders.acknowledged, pacs.files())
        assert accounts.problems == ()
        assert set(senders.acknowledged) == set(uids(studies))
        assert {report.study_instance_uid for report in received_reports(pacs.files())} == {
            study.study_instance_uid for study in studies
        }


def test_sigterm_while_the_pacs_hangs_ends_with_status_0_and_a_restart_delivers(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    port = free_port()
    delivery = {"timeout_s": 120}
    with worker(tmp_path / "worker", bundle=bundle, pacs_port=port, delivery=delivery) as served:
        with silent_server(port) as called:
            send_study(served.port, studies[0])
            with called.accept()[0]:
                status = served.terminate()
        with storescp_process(tmp_path / "pacs", port=port) as pacs:
            served.start()
            served.wait_drained()

            assert status == 0
            assert account(served, uids(studies[:1]), pacs.files()).problems == ()


def test_below_the_disk_reserve_senders_are_told_to_try_again_and_may_once_there_is_room(
    bundle: Path | str, studies: list[SentStudy], tmp_path: Path
) -> None:
    free_mb = shutil.disk_usage(tmp_path).free // MEGABYTE
    margin_mb = free_mb // 4  # what other programs may write or delete meanwhile
    spool = {"reserve_mb": free_mb - margin_mb}
    with (
        storescp_process(tmp_path / "pacs") as pacs,
        worker(tmp_path / "worker", bundle=bundle, pacs_port=pacs.port, spool=spool) as served,
    ):
        before = send_study(served.port, studies[0])
        with disk_space_taken(tmp_path, 2 * margin_mb):
            refused = send_study(served.port, studies[1])
        afterwards = send_study(served.port, studies[1])
        served.wait_drained()

        assert before.acknowledged == list(studies[0].files)
        assert refused.acknowledged == []
        assert set(refused.answers.values()) == {"Refused: OutOfResources"}
        assert afterwards.acknowledged == list(studies[1].files)
        statuses = served.query("SELECT status, reason_code FROM v_rejections WHERE kind = 'STORE'")
        assert Counter((row["status"], row["reason_code"]) for row in statuses) == {
            ("0xA700", "OUT_OF_RESOURCES"): len(refused.answers)
        }
        assert account(served, uids(studies[:2]), pacs.files()).problems == ()


@contextmanager
def silent_server(port: int) -> Iterator[socket.socket]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(60)
        yield server


@contextmanager
def disk_space_taken(folder: Path, megabytes: int) -> Iterator[None]:
    """So much less room on the file system of `folder`; nothing is written."""
    path = folder / "filler"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, megabytes * MEGABYTE)
        yield
    finally:
        path.unlink(missing_ok=True)
