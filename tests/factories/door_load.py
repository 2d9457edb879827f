"""Honest senders alone and in a crowd: how long they take, and what the process under test takes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from factories.crowd import CrowdPlan, pressing
from factories.dicom import make_fundus
from factories.door import Wire, associate_rq, store_pdus
from factories.process import Footprint, Worker
from pydicom.uid import UID

_AGAIN_S = 0.25
_SAMPLE_S = 0.5
_SUCCESS = 0x0000
_GIVE_UP_S = 600.0


@dataclass(frozen=True)
class Load:
    """How much of everything.

    Attributes:
        honest: Senders that are measured; each sends one study over one association at a time.
        objects: Objects of each.
        object_kb: Kilobytes of each object, about.
        idle: Associations that are asked for and then say nothing.
        slow: Associations that send a byte a second.
        probes: Connections that are opened and closed.
        probes_per_s: How many of them a second.
        seed: Of the pauses after a refusal.
    """

    honest: int = 10
    objects: int = 20
    object_kb: int = 1000
    idle: int = 200
    slow: int = 50
    probes: int = 10_000
    probes_per_s: float = 500.0
    seed: int = 1


@dataclass(frozen=True)
class Sent:
    """What became of one honest sender's study.

    Attributes:
        seconds: From its first request to its last acknowledgement.
        refused: Association requests that were rejected.
        unanswered: Connections that ended before a request was answered.
        broken: Associations that ended before everything was acknowledged.
        acknowledged: SOP instance UIDs.
    """

    seconds: float
    refused: int
    unanswered: int
    broken: int
    acknowledged: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """All honest senders at once."""

    sent: tuple[Sent, ...]

    @property
    def slowest_s(self) -> float:
        """Seconds until the last one was done."""
        return max(each.seconds for each in self.sent)

    @property
    def acknowledged(self) -> list[str]:
        """SOP instance UIDs of all."""
        return [uid for each in self.sent for uid in each.acknowledged]


@dataclass
class Outcome:
    """What a run found; footprints are of the serving process."""

    load: Load
    alone: Phase
    crowded: Phase
    crowd: dict[str, int]
    before: Footprint
    after: Footprint
    during: list[Footprint] = field(default_factory=list, repr=False)
    rejections: dict[str, int] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        """How much longer the slowest honest sender took in the crowd."""
        return self.crowded.slowest_s / self.alone.slowest_s

    def figures(self) -> dict[str, Any]:
        """Everything that was found, as JSON takes it."""
        return {
            "load": asdict(self.load),
            "alone_s": sorted(round(each.seconds, 2) for each in self.alone.sent),
            "crowded_s": sorted(round(each.seconds, 2) for each in self.crowded.sent),
            "factor": round(self.factor, 2),
            "refused": [each.refused for each in self.crowded.sent],
            "unanswered": [each.unanswered for each in self.crowded.sent],
            "broken": [each.broken for each in self.crowded.sent],
            "acknowledged": [len(self.alone.acknowledged), len(self.crowded.acknowledged)],
            "crowd": self.crowd,
            "rejections": self.rejections,
            "before": asdict(self.before),
            "peak": asdict(peak(self.during)),
            "after": asdict(self.after),
        }


def run(served: Worker, load: Load) -> Outcome:
    """Send everything twice: alone, then in the crowd, which presses until all probes are made.

    Args:
        served: The process under test, running.
        load: How much of everything.
    """
    address = ("127.0.0.1", served.port)
    alone = send_all(address, load, number=0)
    served.wait_drained()
    knock(address, 50)  # what is made once is made now
    before = settled(served)
    with pressing(address, plan_of(load)) as crowd, sampled(served) as during:
        crowded = send_all(address, load, number=1)
        crowd.tired.wait(_GIVE_UP_S)
    served.wait_drained()
    served.wait_for(lambda: len(incoming(served)) == 0, "no temporary file")
    after = settled(served, at_most=before)
    probes = load.probes
    rejected = crowd.counts.get("rejected", 0) + sum(each.refused for each in crowded.sent)
    served.wait_for(
        lambda: (
            rejections(served).get("CONNECTION_PROBE", 0) >= probes
            and rejections(served).get("ASSOCIATION_LIMIT", 0) >= rejected
        ),
        lambda: f"{probes} probes and {rejected} rejected requests as rows, not {rejections(served)}",
    )
    return Outcome(load, alone, crowded, crowd.counts, before, after, during, rejections(served))


def rejections(served: Worker) -> dict[str, int]:
    """What was turned away, by reason, as the rows count it."""
    statement = "SELECT reason_code, sum(count) AS n FROM v_rejections GROUP BY 1 ORDER BY 1"
    return {row["reason_code"]: row["n"] for row in served.query(statement)}


def plan_of(load: Load) -> CrowdPlan:
    """The crowd of a load, each with an AE title of its own."""
    message = b"".join(store_pdus(make_fundus(size=64)))
    return CrowdPlan(
        idle=tuple(associate_rq(f"IDLE{number}") for number in range(load.idle)),
        slow=tuple(associate_rq(f"SLOW{number}") for number in range(load.slow)),
        message=message,
        probes=load.probes,
        probes_per_s=load.probes_per_s,
    )


def send_all(address: tuple[str, int], load: Load, number: int) -> Phase:
    """Let every honest sender send a study of its own; `number` tells the studies of two phases apart."""
    studies = [_study(load, f"2.25.{number + 1}{sender:03}") for sender in range(load.honest)]
    start = threading.Barrier(load.honest)
    with ThreadPoolExecutor(load.honest) as pool:
        futures = [
            pool.submit(_send, address, f"HONEST{sender}", study, start, random.Random(load.seed + sender))  # noqa: S311 - pauses
            for sender, study in enumerate(studies)
        ]
        return Phase(tuple(future.result() for future in futures))


def _study(load: Load, root: str) -> list[tuple[str, bytes]]:
    """SOP instance UID and PDUs of each object; the padding (FFFC,FFFC) makes them as long as real ones."""
    ds = make_fundus(size=256, study_uid=f"{root}.1", series_uid=f"{root}.2", patient_id=root)
    ds.add_new(0xFFFCFFFC, "OB", bytes(max(2, load.object_kb * 1000 - len(ds.PixelData))))
    objects = []
    for number in range(load.objects):
        ds.SOPInstanceUID = UID(f"{root}.3.{number}")
        objects.append((str(ds.SOPInstanceUID), b"".join(store_pdus(ds, number + 1))))
    return objects


def _send(
    address: tuple[str, int],
    ae_title: str,
    study: Sequence[tuple[str, bytes]],
    start: threading.Barrier,
    dice: random.Random,
) -> Sent:
    """Send a study as a modality does: again from where it broke off, until everything is acknowledged."""
    start.wait()
    began = time.monotonic()
    refused = unanswered = broken = 0
    done: list[str] = []
    while len(done) < len(study):
        if time.monotonic() - began > _GIVE_UP_S:
            raise TimeoutError(f"{ae_title}: {len(done)} of {len(study)} acknowledged")
        accepted = None
        try:
            with Wire(address, ae_title, timeout_s=60) as wire:
                accepted = wire.associate()
                if accepted:
                    _send_rest(wire, study, done)
        except OSError:
            unanswered += accepted is None
            broken += accepted is True
        refused += accepted is False
        if len(done) < len(study):
            time.sleep(_AGAIN_S * dice.uniform(0.5, 1.5))
    return Sent(time.monotonic() - began, refused, unanswered, broken, tuple(done))


def _send_rest(wire: Wire, study: Sequence[tuple[str, bytes]], done: list[str]) -> None:
    for uid, pdus in study[len(done) :]:
        wire.socket.sendall(pdus)
        if wire.answer() != _SUCCESS:
            return
        done.append(uid)
    wire.release()


def knock(address: tuple[str, int], times: int) -> None:
    """Open and close connections."""
    for _ in range(times):
        Wire(address, "PROBE").socket.close()


def incoming(served: Worker) -> list[str]:
    """Temporary files of the listener."""
    return [each.name for each in (served.data / "spool" / "incoming").iterdir()]


def settled(served: Worker, at_most: Footprint | None = None, timeout_s: float = 60) -> Footprint:
    """The footprint once threads and descriptors stay the same, and are back at `at_most` if given."""
    last, current = None, served.footprint()
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(_SAMPLE_S)
        last, current = current, served.footprint()
        same = (last.threads, last.descriptors) == (current.threads, current.descriptors)
        if same and (at_most is None or current.threads <= at_most.threads):
            break
    return current


def peak(footprints: Sequence[Footprint]) -> Footprint:
    """The most of each that was seen."""
    return Footprint(
        max(each.resident_bytes for each in footprints),
        max(each.threads for each in footprints),
        max(each.descriptors for each in footprints),
    )


@contextmanager
def sampled(served: Worker) -> Iterator[list[Footprint]]:
    """Footprints twice a second while the block runs."""
    found = [served.footprint()]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            found.append(served.footprint())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
