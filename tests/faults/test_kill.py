"""`kill -9` at random moments while studies arrive: nothing acknowledged is lost, doubled or stuck.

`FUNDUS_TEST_KILLS=10 FUNDUS_TEST_SEED=1 pytest -s tests/faults/test_kill.py` kills more often, elsewhere, and
prints the account.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest
from factories.dcmtk import storescp_process
from factories.photographs import camera_strings, write_studies
from factories.process import POLL_S, Worker, bundle_to_test, worker
from factories.received_reports import account
from factories.storescu import PersistentSenders

KILLS = int(os.environ.get("FUNDUS_TEST_KILLS", "3"))
SEED = int(os.environ.get("FUNDUS_TEST_SEED", "20"))
STUDIES = int(os.environ.get("FUNDUS_TEST_STUDIES", str(3 * KILLS + 3)))
LOG_LINES_A_STUDY = 8
"""Two of `object_stored` and `image_ended`; association, closing, report, delivery."""
pytestmark = [pytest.mark.slow, pytest.mark.dcmtk, pytest.mark.timeout(1800), pytest.mark.xdist_group("kill")]


def test_nothing_acknowledged_is_lost_doubled_or_stuck_when_the_process_is_killed(tmp_path: Path) -> None:
    dice = random.Random(SEED)  # noqa: S311 - chooses moments, keeps no secrets
    bundle = bundle_to_test(tmp_path / "bundle")
    studies = write_studies(tmp_path / "studies", STUDIES, camera_strings(bundle))
    a_life = -(-STUDIES // (KILLS + 1))
    with (
        storescp_process(tmp_path / "pacs") as pacs,
        worker(tmp_path / "worker", bundle=bundle, pacs_port=pacs.port) as served,
        PersistentSenders(served.port, split_every=3) as senders,
    ):
        for life in range(KILLS):
            senders.offer(studies[life * a_life : (life + 1) * a_life])
            moment = kill_at_a_random_moment(served, dice, a_life)
            say(f"kill {life + 1}: {moment}, {len(senders.acknowledged)} objects acknowledged")
            if dice.random() < 0.25:  # not even its start is left in peace
                served.launch()
                time.sleep(dice.uniform(0, 3))
                served.kill()
            served.start()
        senders.offer(studies[KILLS * a_life :])
        served.wait_for(lambda: not senders.outstanding, lambda: f"{senders.outstanding} studies to be taken")
        served.wait_drained()
        accounts = account(served, senders.acknowledged, pacs.files())

        say(f"{KILLS} kills, seed {SEED}, {senders.attempts} associations: {accounts}")
        sent = {photograph.sop_instance_uid for study in studies for photograph in study.photographs}
        assert accounts.problems == ()
        assert set(senders.acknowledged) == sent
        assert accounts.findings + accounts.refusals == len(sent)
        assert accounts.studies == STUDIES
        assert served.count("SELECT count(*) FROM reports WHERE state = 'WRITTEN'") == STUDIES


def kill_at_a_random_moment(served: Worker, dice: random.Random, studies: int) -> str:
    """Kill in the middle of anything that it does for these studies: so many log lines later, and a bit."""
    lines = lines_of(served.log_file)
    wanted = dice.randrange(1, LOG_LINES_A_STUDY * studies)
    deadline = time.monotonic() + dice.uniform(5, 15)  # its work may be done before: it is killed idle then
    while lines_of(served.log_file) < lines + wanted and time.monotonic() < deadline:
        time.sleep(POLL_S / 10)
    time.sleep(dice.uniform(0, 0.05))
    served.kill()
    return f"after {lines_of(served.log_file) - lines} log lines of {wanted}"


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def say(sentence: str) -> None:
    sys.stdout.write(f"\n{sentence}")
