"""Images a second from the wire to the report at the PACS, against what the cores could do: `make bench`.

The bound is cores / (CPU seconds that an image costs), where an image costs

- the engine: the predictor alone, in full batches, on pictures and adapters in the proportions that are sent;
- the host: everything else in the serving process. It is measured by the same run with models that cost next
  to nothing (their own cost subtracted), so that waiting or spinning beside the real engine cannot hide in
  it;
- the sender and the receiver: storescu with the harness that starts it, and storescp, in the run itself.

A second figure takes engine and host together as the serving process's CPU time in the run itself: the share
of the cores that was kept busy. Figures are printed, never asserted: they belong to the machine.
`FUNDUS_BENCH_IMAGES`, `FUNDUS_TEST_BUNDLE` and `FUNDUS_TEST_IMAGES` choose what is measured.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import simplejpeg
from factories.bundle import write_tiny_bundle
from factories.dcmtk import storescp_process
from factories.photographs import SentStudy, camera_strings, source_photographs, write_studies
from factories.process import BUNDLE_VARIABLE, Worker, worker
from factories.received_reports import account
from factories.storescu import send_in_parallel

from models.bundle import Bundle
from models.predictor import Predictor
from models.preprocess import prepare

IMAGES = int(os.environ.get("FUNDUS_BENCH_IMAGES", "500"))
ASSOCIATIONS = 4
BATCH = 8
WARM_UP_STUDIES = 8
SAMPLE_S = 0.5
MEGABYTE = 1024 * 1024
DRAIN_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Cost:
    """One run: how long it took, and the CPU seconds of everybody in it.

    Attributes:
        wall_s: From the first association to the last report at the PACS.
        others_s: CPU seconds of everybody else on the machine; a run says little unless these are few.
        memory: Resident bytes of the serving process, by images analysed, as sampled.
    """

    images: int
    wall_s: float
    serving_s: float
    sender_s: float
    receiver_s: float
    others_s: float
    memory: list[tuple[int, int]] = field(repr=False)

    @property
    def images_per_s(self) -> float:
        """End to end."""
        return self.images / self.wall_s


@pytest.mark.timeout(3600)
def bench_end_to_end(tmp_path: Path) -> None:
    bundle: str | Path = os.environ.get(BUNDLE_VARIABLE, "reference")
    manifest = Bundle.load(str(bundle)).manifest
    idle = write_tiny_bundle(tmp_path / "idle", size=manifest.size, adapters=sorted(manifest.adapters))
    cameras = camera_strings(bundle)
    studies = write_studies(tmp_path / "studies", IMAGES // 2 + WARM_UP_STUDIES, cameras)

    run = measure(tmp_path / "real", bundle, studies)
    hosting = measure(tmp_path / "hosting", idle, studies)
    engine_s = engine_cpu_s(bundle)
    host_s = hosting.serving_s / hosting.images - engine_cpu_s(idle)

    report(run, engine_s, host_s)


def measure(folder: Path, bundle: Path | str, studies: list[SentStudy]) -> Cost:
    """Warm a process up with the first studies, send the others, wait for every report."""
    jobs = {"sweep_interval_s": 5}
    with (
        storescp_process(folder / "pacs") as pacs,
        worker(folder, bundle=bundle, pacs_port=pacs.port, jobs=jobs) as served,
    ):
        warm_up, timed = studies[:WARM_UP_STUDIES], studies[WARM_UP_STUDIES:]
        send_in_parallel(served.port, warm_up, ASSOCIATIONS)
        served.wait_drained(DRAIN_TIMEOUT_S)
        serving = psutil.Process(served.process.pid)
        (receiver,) = (each for each in psutil.Process().children() if each.name() == "storescp")
        before = used(serving, receiver)
        started = time.perf_counter()
        with sampled_memory(served) as memory:
            send_in_parallel(served.port, timed, ASSOCIATIONS)
            served.wait_drained(DRAIN_TIMEOUT_S)
        wall_s = time.perf_counter() - started
        spent = used(serving, receiver) - before
        sent = [photograph.sop_instance_uid for study in studies for photograph in study.photographs]
        assert account(served, sent, pacs.files()).problems == ()
    serving_s, sender_s, receiver_s, machine_s = spent.tolist()
    others_s = machine_s - serving_s - sender_s - receiver_s
    return Cost(2 * len(timed), wall_s, serving_s, sender_s, receiver_s, others_s, memory)


def used(serving: psutil.Process, receiver: psutil.Process) -> np.ndarray:
    """CPU seconds so far of the serving process, the senders, the receiver, and the whole machine."""
    machine = psutil.cpu_times()
    busy_s = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
    return np.array([cpu_s(serving), senders_cpu_s(), cpu_s(receiver), busy_s])


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far, in user and kernel mode."""
    times = process.cpu_times()
    return float(times.user + times.system)


def senders_cpu_s() -> float:
    """CPU seconds of the storescu processes that have ended, and of this process, which starts them."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def sampled_memory(served: Worker) -> Iterator[list[tuple[int, int]]]:
    """(Images analysed, resident bytes) as often as `SAMPLE_S`, while the block runs."""
    samples: list[tuple[int, int]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            analysed = served.count("SELECT count(*) FROM instances WHERE state = 'ANALYSED'")
            samples.append((analysed, served.footprint().resident_bytes))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def engine_cpu_s(bundle: Path | str) -> float:
    """CPU seconds an image that the predictor takes alone; one image in four goes through an adapter."""
    loaded = Bundle.load(str(bundle))
    predictor = Predictor(loaded)
    streams = (path.read_bytes() for path in islice(cycle(source_photographs()), BATCH))
    pictures = [np.asarray(simplejpeg.decode_jpeg(stream, colorspace="RGB")) for stream in streams]
    tensors = [prepare(picture, loaded.manifest.size).tensor for picture in pictures]
    adapter = next(each.camera for each in camera_strings(bundle) if each.route == "adapter")
    adapters = [adapter if number % 4 == 1 else None for number in range(BATCH)]
    predictor.predict(tensors, adapters)
    batches = max(2, min(20, IMAGES // BATCH))
    started = time.process_time()
    for _ in range(batches):
        predictor.predict(tensors, adapters)
    return (time.process_time() - started) / (batches * BATCH)


def report(run: Cost, engine_s: float, host_s: float) -> None:
    """Print the table, then the same as JSON."""
    cores = len(os.sched_getaffinity(0))
    sender_s, receiver_s = run.sender_s / run.images, run.receiver_s / run.images
    bound = cores / (engine_s + host_s + sender_s + receiver_s)
    busy = cores / ((run.serving_s + run.sender_s + run.receiver_s) / run.images)
    peak, slope = max(resident for _, resident in run.memory), memory_slope(run.memory)
    figures: dict[str, Any] = {
        "cores": cores,
        "images": run.images,
        "images_per_s": run.images_per_s,
        "engine_cpu_ms": 1000 * engine_s,
        "host_cpu_ms": 1000 * host_s,
        "sender_cpu_ms": 1000 * sender_s,
        "receiver_cpu_ms": 1000 * receiver_s,
        "serving_cpu_ms_in_the_run": 1000 * run.serving_s / run.images,
        "bound_images_per_s": bound,
        "share_of_bound": run.images_per_s / bound,
        "share_of_cores_kept_busy": run.images_per_s / busy,
        "share_of_cores_others_took": run.others_s / (run.wall_s * cores),
        "memory_start_mb": run.memory[0][1] / MEGABYTE,
        "memory_peak_mb": peak / MEGABYTE,
        "memory_slope_mb_per_100_images": slope * 100 / MEGABYTE,
    }
    sys.stdout.write("\n")
    for name, value in figures.items():
        sys.stdout.write(f"{name.replace('_', ' '):<40} {value:>10.4g}\n")
    measured = {key: value for key, value in asdict(run).items() if key != "memory"}
    sys.stdout.write(json.dumps({**figures, "run": measured}) + "\n")


def memory_slope(samples: list[tuple[int, int]]) -> float:
    """Bytes an image, fitted to the second half of the samples: the first fills caches and pools."""
    half = samples[len(samples) // 2 :]
    if len({images for images, _ in half}) < 2:
        return 0.0
    images, resident = np.array(half, float).T
    return float(np.polyfit(images, resident, 1)[0])
