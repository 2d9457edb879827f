"""Files of the corpus, mutated: each ends in a result or in a named refusal, and is accounted for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from corpus import fuzz
from corpus.case import Case
from corpus.catalogue import CASES
from corpus.mutation import dataset_start, mutated, sources
from corpus.reading import READ, outcome
from factories.repository import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.reasons import REASONS

SENT = tuple(
    case for case in CASES if case.name not in ("bomb-deflated", "sequence-huge", "sequence-bottomless")
)
"""A large file costs each example time and shows nothing more."""
_PLACE = st.one_of(st.integers(0, 2700), st.integers(0, 200_000))
_PUT = st.tuples(st.just("put"), _PLACE, st.binary(min_size=1, max_size=16))
_CUT = st.tuples(st.just("cut"), _PLACE, st.just(b""))
_DROP = st.tuples(st.just("drop"), _PLACE, st.binary(min_size=1, max_size=64))
_EDITS = st.lists(st.one_of(_PUT, _PUT, _DROP, _CUT), min_size=1, max_size=5)


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """The file with its data set changed; places count from where that begins."""
    start = dataset_start(content)
    meta, content = content[:start], content[start:]
    for kind, place, value in edits:
        if kind == "cut":
            content = content[:place]
        else:
            content = content[:place] + (value if kind == "put" else b"") + content[place + len(value) :]
    return meta + content


@given(case=st.sampled_from(SENT), edits=_EDITS)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_edited_object_ends_in_a_result_or_a_named_refusal(
    case: Case, edits: list[tuple[str, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "edited.dcm"
    path.write_bytes(edited(next(iter(case.files().values())), edits))

    assert outcome(path) in {READ, *REASONS}


def test_the_same_seed_makes_the_same_objects_and_another_one_others() -> None:
    assert [mutated(1, number) for number in range(5)] == [mutated(1, number) for number in range(5)]
    assert mutated(1, 0) != mutated(2, 0)
    assert all(mutated(1, number) not in sources() for number in range(5))


def test_every_mutated_object_is_accounted_for() -> None:
    *_, account = fuzz.run(seed=20260301, objects=150)

    assert account.outcomes.total() == 150
    assert account.failed == []
    assert account.outcomes[READ] > 10
    assert len(account.outcomes) >= 4


def child(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import os, sys, time\nfirst, end = map(int, sys.argv[2:])\n{script}")


def test_an_object_that_ends_its_process_is_counted_and_the_next_one_read() -> None:
    script = "for n in range(first, end):\n if n == 3: os.kill(os.getpid(), 11)\n print('read', flush=True)"

    *_, account = fuzz.run(seed=1, objects=6, child=child(script))

    assert account.outcomes == {"read": 5, "died: -11": 1}
    assert account.failed == [3]


def test_an_object_that_hangs_is_counted_and_the_next_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "HANGING_S", 2.0)
    script = "for n in range(first, end):\n if n == 1: time.sleep(60)\n print('read', flush=True)"

    *_, account = fuzz.run(seed=1, objects=3, child=child(script))

    assert account.outcomes == {"read": 2, "hung": 1}
    assert account.failed == [1]


def test_the_coverage_guided_fuzzer_accounts_for_its_objects() -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "corpus.coverage", "300", "1"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["accounted_for"] == sum(report["outcomes"].values()) == 300
    assert set(report["outcomes"]) <= {READ, *REASONS}
