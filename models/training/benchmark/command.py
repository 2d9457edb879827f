"""From folders to ``benchmark.json`` and ``benchmark.html``: what `fundus-train evaluate benchmark` does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle
from models.cameras import CAMERAS, SimulatedCamera
from models.training.benchmark import heldout, report
from models.training.benchmark.graphs import OURS, PAIRED, PLAIN, Graphs
from models.training.benchmark.heldout import HeldOut
from models.training.benchmark.results import Benchmark
from models.training.benchmark.shift import BenchmarkConfig, CameraShift
from models.training.benchmark.training import RowTrainer
from models.training.data import DataError
from models.training.grading import REFERABLE
from models.training.lesions import Progress
from models.training.recipes import load_trunk
from models.training.run import environment, write_json


@dataclass(frozen=True)
class BenchmarkFiles:
    """Where a benchmark reads and writes.

    Attributes:
        images: Folder of graded photographs of the labelled camera.
        labels: Their grades.
        out: Folder for the results, and in ``graphs/`` for graphs that were trained for them.
        run: Run folder whose split says what was held out; its bundle is measured unless one is named.
        bundle: Bundle, by name or folder.
        second_style: Without a run: photographs of the labelled camera, of other people.
        lesions: Folder of photographs with masks.
        graphs: Folder ``<method>/<camera key>.onnx`` of trained rows; ``out/graphs`` if None.
    """

    images: Path
    labels: Path
    out: Path
    run: Path | None = None
    bundle: str | None = None
    second_style: Path | None = None
    lesions: Path | None = None
    graphs: Path | None = None


def run_benchmark(
    files: BenchmarkFiles,
    config: BenchmarkConfig,
    *,
    own_cameras: Sequence[SimulatedCamera],
    threads: int,
    progress: Progress,
) -> Benchmark:
    """Measure, and write ``benchmark.json`` and ``benchmark.html`` into ``files.out``.

    Args:
        files: Where to read and write.
        config: Settings.
        own_cameras: Cameras that have no name in ``models.cameras``.
        threads: CPU threads of every graph.
        progress: Told what is done.

    Raises:
        DataError: Folders, run, bundle or cameras do not go together; the message says what is missing.
    """
    cameras = [*named_cameras(config.cameras, not own_cameras), *own_cameras]
    held = _held_out(files)
    bundle = Bundle.load(files.bundle or str((files.run or Path()).resolve() / "bundle"))
    graphs = _graphs(files, bundle, held, config, cameras=cameras, progress=progress)
    measured = held.limited(config.limit) if config.limit else held
    shift = CameraShift(bundle, measured, graphs, config, threads=threads, progress=progress)
    found = shift.run(cameras)
    facts = _facts(bundle, measured, config, threads)
    files.out.mkdir(parents=True, exist_ok=True)
    write_json(files.out / "benchmark.json", report.as_json(found, facts))
    (files.out / "benchmark.html").write_text(report.as_html(found, facts), encoding="utf-8")
    return found


def named_cameras(names: Sequence[str], all_if_none: bool) -> list[SimulatedCamera]:
    """Named cameras; all where none is named and that is wanted.

    Raises:
        DataError: There is no camera of a name.
    """
    unknown = [name for name in names if name not in CAMERAS]
    if unknown:
        raise DataError(f"no camera {', '.join(unknown)}; there are {', '.join(CAMERAS)}")
    return [CAMERAS[name] for name in (names or (CAMERAS if all_if_none else ()))]


def _held_out(files: BenchmarkFiles) -> HeldOut:
    if files.run is not None:
        return heldout.of_run(files.run, files.images, files.labels, files.lesions)
    if files.bundle is None or files.second_style is None:
        raise DataError(
            "give a run folder (--run), or a bundle (--bundle) with photographs that trained nothing in it "
            "(--images) and others of the same camera (--second-style)"
        )
    return heldout.of_folders(files.images, files.labels, files.second_style, files.lesions)


def _graphs(
    files: BenchmarkFiles,
    bundle: Bundle,
    held: HeldOut,
    config: BenchmarkConfig,
    *,
    cameras: Sequence[SimulatedCamera],
    progress: Progress,
) -> Graphs:
    """Where trained rows come from; ours may be trained for every camera, the others for those named."""
    known = {camera.name: camera.key for camera in cameras}
    strangers = [name for name in config.trained if name not in known]
    if strangers:
        raise DataError(f"--trained names {', '.join(strangers)}; measured are {', '.join(known)}")
    train = None
    if files.run is not None and (files.run / "trunk.pt").exists():
        train = RowTrainer(
            held,
            trunk=load_trunk(files.run),
            size=bundle.manifest.size,
            config=config.adapter,
            seed=config.seed,
            progress=progress,
        )
    some = frozenset(known[name] for name in config.trained)
    may = {OURS: frozenset(known.values()), PLAIN: some, PAIRED: some}
    return Graphs(files.graphs or files.out / "graphs", bundle.adapter_paths, train, may)


def _facts(bundle: Bundle, held: HeldOut, config: BenchmarkConfig, threads: int) -> report.Facts:
    return report.Facts(
        bundle=f"{bundle.manifest.id} {bundle.manifest.version}",
        digest=bundle.digest,
        photographs=len(held.photographs),
        referable=int((held.grades >= REFERABLE).sum()),
        lesions=len(held.lesions),
        second_style=len(held.second),
        data_fingerprint=held.fingerprint,
        threads=threads,
        config=json.loads(json.dumps(dataclasses.asdict(config))),
        environment=environment(),
    )
