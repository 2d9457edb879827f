"""The store's transitions in any order, against a small reference model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import text

from worker.database import create_database_engine, upgrade
from worker.store import deliveries, images, intake, reports, studies
from worker.store.images import FrameFinding
from worker.store.intake import NewImage, Outcome
from worker.store.reports import DestinationRow
from worker.store.studies import ClosingPolicy, StudyContent
from worker.transactions import Database

POLICY = ClosingPolicy("quiet", 60.0, 600.0, 600.0, None)
INSTANCES = st.integers(0, 2)
STUDIES = st.integers(0, 1)
SIDES = st.sampled_from("RL")


def _image(instance: int, study: int, side: str, pixels: int = 0) -> NewImage:
    sha256 = f"{instance}-{study}-{side}-{pixels}".ljust(64, "0")
    return NewImage(
        study=StudyContent(f"1.2.{study}", None, "p" * 64, 2, None),
        sop_instance_uid=f"1.3.{instance}",
        series_instance_uid="1.4",
        sop_class_uid="1.5",
        transfer_syntax_uid="1.6",
        sha256=sha256,
        pixel_sha256=f"{instance}-{pixels}",
        spool_path=f"objects/{sha256}",
        quarantine_path=f"quarantine/{sha256}",
        size_bytes=1,
        number_of_frames=1,
        rows=1,
        columns=1,
        manufacturer="",
        model_name="",
        camera=None,
        camera_exact=False,
        camera_rule=None,
        route="unknown",
        adapter=None,
        lateralities=((side, None),),
        issuer_key=None,
        header_key=f"{study}-{side}",
        calling_ae="A",
        association=None,
    )


FINDING = FrameFinding(
    1, "unknown", None, 0, "none", False, 0.1, 0.9, 1.0, None, None, "test", None, None, None, None, 1, 1, 1
)


class Store(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        engine = create_database_engine(f"sqlite:///{self.folder / 'x.db'}")
        upgrade(engine)
        self.database = Database(engine)
        self.bundle_pk = self.database.write(
            reports.bundle_key, bundle_id="b", version="1", digest="d", training_camera="c", activate=True
        )
        self.known: dict[int, dict[str, Any]] = {}  # the model: what each instance should be
        self.claims: list[tuple[int, images.ImageClaim]] = []

    def execute(self, statement: str) -> None:
        self.database.write(lambda tx: tx.execute(text(statement)) and None)

    def rows(self, statement: str) -> list[dict[str, Any]]:
        return self.database.read(lambda tx: [dict(row._mapping) for row in tx.execute(text(statement))])

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            shutil.rmtree(self.folder)

    @rule(instance=INSTANCES, study=STUDIES, side=SIDES)
    def receive(self, instance: int, study: int, side: str) -> None:
        """New, the same again, or a corrected header."""
        recorded = self.database.write(intake.record, _image(instance, study, side), POLICY)
        model = self.known.get(instance)
        if model is None:
            assert recorded.outcome is Outcome.NEW
            self.known[instance] = {"state": "RECEIVED", "at": (study, side)}
        elif (study, side) == model["at"]:
            assert recorded.outcome is Outcome.IDENTICAL
        else:  # one that came before too: it takes the correction back
            assert recorded.outcome is Outcome.NEW_HEADER
            assert recorded.analyse
            model["at"] = (study, side)
            model["state"] = "RECEIVED"

    @rule(instance=INSTANCES)
    def other_pixels(self, instance: int) -> None:
        if instance in self.known:
            study, side = self.known[instance]["at"]
            image = _image(instance, study, side, pixels=9)
            recorded = self.database.write(intake.record, image, POLICY)
            aside = self.known[instance].setdefault("aside", set())
            if (study, side) in aside:
                assert recorded.outcome is Outcome.KEPT_ASIDE
            else:
                assert recorded.outcome is Outcome.UID_CONFLICT
                aside.add((study, side))
                self.known[instance]["conflict"] = True

    @rule()
    def a_person_decides(self) -> None:
        """On every conflict there is: it is over, and the same bytes do not bring it back."""
        found = self.database.read(intake.conflicts, sop_instance_uid=None, study_instance_uid=None)
        assert len(found) == sum(model.get("conflict", False) for model in self.known.values())
        assert self.database.write(intake.keep_first, found, POLICY) == len(found)
        for model in self.known.values():
            model["conflict"] = False

    @rule(instance=INSTANCES)
    def claim(self, instance: int) -> None:
        found = self.rows(f"SELECT id, claim_token FROM instances WHERE sop_instance_uid = '1.3.{instance}'")  # noqa: S608
        if found:
            claimed = self.database.write(images.claim, found[0]["id"], "w", 600.0)
            free = self.known[instance]["state"] == "RECEIVED" and found[0]["claim_token"] is None
            assert (claimed is not None) == free
            if claimed is not None:
                self.claims.append((instance, claimed))

    @rule()
    def claims_run_out(self) -> None:
        values = "claim_owner = NULL, claim_token = NULL, claim_expires_at = NULL"
        self.execute(f"UPDATE instances SET {values}")  # noqa: S608
        self.execute(f"UPDATE studies SET {values}")  # noqa: S608

    @rule(data=st.data(), how=st.sampled_from(["finish", "refuse", "retry", "give_back"]))
    def end(self, data: st.DataObject, how: str) -> None:
        """A worker ends its work, perhaps long after it lost its claim."""
        if not self.claims:
            return
        instance, claimed = data.draw(st.sampled_from(self.claims))
        (found,) = self.rows(f"SELECT claim_token FROM instances WHERE id = {claimed.instance_id}")  # noqa: S608
        mine = found["claim_token"] == claimed.token
        if how == "finish":
            kept = self.database.write(images.finish, claimed, self.bundle_pk, [FINDING])
        elif how == "refuse":
            kept = self.database.write(images.refuse, claimed, "PIXELS_UNREADABLE", None)
        elif how == "retry":
            kept = self.database.write(images.retry, claimed, "x", 0.0)
        else:
            kept = self.database.write(images.give_back, claimed)
        assert kept == mine
        if kept and how in ("finish", "refuse"):
            self.known[instance]["state"] = "ANALYSED" if how == "finish" else "REFUSED"

    @rule(held=st.booleans())
    def close(self, held: bool) -> None:
        if not held:
            self.execute("UPDATE studies SET close_due_at = '2000-01-01', opened_at = '2000-01-01'")
        self.database.write(studies.close_due, POLICY)

    @rule()
    def deadline(self) -> None:
        self.execute("UPDATE studies SET report_deadline_at = '2000-01-01' WHERE state = 'CLOSED'")

    @rule(study=STUDIES, crash=st.booleans())
    def report(self, study: int, crash: bool) -> None:
        found = self.rows(f"SELECT id FROM studies WHERE study_instance_uid = '1.2.{study}'")  # noqa: S608
        if not found:
            return
        claimed = self.database.write(studies.claim, found[0]["id"], "w", 600.0)
        if claimed is None:
            return
        waiting = [m for m in self.known.values() if m["at"][0] == study and m["state"] == "RECEIVED"]
        assert claimed.partial == bool(waiting)
        latest = self.database.read(reports.latest, claimed.study_id, self.bundle_pk)
        current = self.database.read(reports.newest_written, claimed.study_id)
        pending = latest if latest is not None and latest.state == "PENDING" else None
        number = 1 if latest is None else latest.revision + (pending is None)
        values = {
            "bundle_pk": self.bundle_pk,
            "revision": number,
            "content_version": claimed.content_version,
            "inputs_hash": "h",
            "partial": claimed.partial,
            "sop_class_uid": "1",
            "sop_instance_uid": f"2.{study}.{number}",
            "series_instance_uid": "3",
            "predecessor_id": None if current is None else current.id,
        }
        row = self.database.write(reports.begin, claimed, values, pending.id if pending else None)
        if not crash:
            to = [DestinationRow("pacs", True)]
            self.database.write(
                reports.finish, claimed, row, spool_path="r", sha256="s", eyes=[], destinations=to
            )

    @rule(study=STUDIES)
    def all_the_way(self, study: int) -> None:
        """What happens most: everything is read, the study closes, its report is written."""
        self.claims_run_out()
        self.a_person_decides()
        for found in self.rows("SELECT id, sop_instance_uid FROM instances WHERE state = 'RECEIVED'"):
            claimed = self.database.write(images.claim, found["id"], "w", 600.0)
            assert claimed is not None
            assert self.database.write(images.finish, claimed, self.bundle_pk, [FINDING])
            self.known[int(found["sop_instance_uid"][4:])]["state"] = "ANALYSED"
        self.close(held=False)
        self.report(study, crash=False)

    @rule(accept=st.booleans())
    def deliver(self, accept: bool) -> None:
        for each in self.database.read(deliveries.due, "pacs", 10):
            if accept:
                assert self.database.write(deliveries.accepted, each.id, None)
            else:
                self.database.write(deliveries.dead, each.id, reason_code="STORE_REFUSED", detail="")

    @invariant()
    def every_instance_is_in_its_one_state(self) -> None:
        if not hasattr(self, "database"):
            return
        found = self.rows(
            "SELECT i.sop_instance_uid AS uid, i.state, i.reason_code, s.study_instance_uid AS study, "
            "(SELECT count(*) FROM findings f WHERE f.instance_id = i.id) AS findings "
            "FROM instances i JOIN studies s ON s.id = i.study_id"
        )
        assert {each["uid"] for each in found} == {f"1.3.{instance}" for instance in self.known}
        for each in found:
            model = self.known[int(each["uid"][4:])]
            assert (each["state"], each["study"]) == (model["state"], f"1.2.{model['at'][0]}")
            assert (each["reason_code"] is not None) == (each["state"] == "REFUSED")
            if each["state"] == "ANALYSED":
                assert each["findings"] == 1

    @invariant()
    def a_study_has_one_current_report_at_most(self) -> None:
        if not hasattr(self, "database"):
            return
        for each in self.rows("SELECT * FROM studies"):
            assert each["reported_version"] <= each["content_version"]
            assert each["partial_version"] <= each["content_version"]
        states = "SELECT study_id, sum(state = 'WRITTEN') AS w, sum(state = 'PENDING') AS p FROM reports"
        for each in self.rows(f"{states} GROUP BY study_id"):
            assert each["w"] <= 1
            assert each["p"] <= 1
            assert each["w"] + each["p"] >= 1
        stale = (
            "SELECT d.id FROM deliveries d JOIN reports r ON r.id = d.report_id "
            "WHERE r.state <> 'WRITTEN' AND d.state IN ('PENDING', 'DEAD')"
        )
        assert self.rows(stale) == []

    @invariant()
    def a_conflict_withholds(self) -> None:
        if not hasattr(self, "database"):
            return
        in_conflict = {f"1.2.{m['at'][0]}" for m in self.known.values() if m.get("conflict")}
        withheld = self.rows(
            "SELECT study_instance_uid AS uid FROM studies WHERE withheld_reason IS NOT NULL"
        )
        assert {each["uid"] for each in withheld} == in_conflict


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
