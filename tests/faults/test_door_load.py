"""A small crowd at the door: honest senders lose nothing, every refusal has a row, nothing is left behind.

`python tests/bench/load_door.py` is the same with figures, and as large as wanted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.door_load import Load, run
from factories.process import bundle_to_test, worker
from factories.runtime import receiving_pacs

LOAD = Load(honest=3, objects=4, object_kb=200, idle=12, slow=4, probes=300, probes_per_s=100)
PLACES = 6
TO_SPARE = 2
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("door")]


def test_in_a_crowd_honest_senders_lose_nothing_and_nothing_is_left(tmp_path: Path) -> None:
    # However slow the machine: only giving way ends an idle association.
    listener = {"maximum_associations": PLACES, "allowed_callers": ["*"], "network_timeout_s": 600}
    bundle = bundle_to_test(tmp_path / "bundle")
    with (
        receiving_pacs() as pacs,
        worker(tmp_path / "worker", bundle=bundle, pacs_port=pacs.port, listener=listener) as served,
    ):
        outcome = run(served, LOAD)
        acknowledged = {*outcome.alone.acknowledged, *outcome.crowded.acknowledged}
        stored = {row["uid"] for row in served.query("SELECT sop_instance_uid AS uid FROM instances")}

    crowd, rows = outcome.crowd, outcome.rejections
    assert len(acknowledged) == 2 * LOAD.honest * LOAD.objects
    assert stored == acknowledged
    # Who is turned away in the last moment may have gone before it heard of it: there may be more rows.
    assert rows["CONNECTION_PROBE"] >= crowd["probes"] == LOAD.probes
    refused = sum(each.refused for each in outcome.crowded.sent) + crowd["rejected"]
    assert rows["ASSOCIATION_LIMIT"] >= refused > 0
    assert rows.get("GAVE_WAY", 0) >= crowd.get("ended", 0) > 0, outcome.figures()
    assert outcome.after.threads <= outcome.before.threads + TO_SPARE
    assert outcome.after.descriptors <= outcome.before.descriptors + TO_SPARE
