"""Mutate the corpus where that reaches new code: atheris (libFuzzer) goes by the lines of `dicom_io` run.

`make fuzz-coverage OBJECTS=100000 SEED=7`. An unnamed exception ends the run; libFuzzer says where its input
is.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dicom_io"]):
    from corpus.reading import outcome

from corpus.mutation import dataset_start, mutate, sources

LONGEST = 1_000_000


def main(arguments: list[str]) -> None:
    """Arguments: number of objects, seed. Prints the outcomes, which add up to the objects, and ends."""
    objects, seed = int(arguments[1]), int(arguments[2])
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        begin = folder / "corpus"
        begin.mkdir()
        for number, content in enumerate(sources()):
            (begin / f"{number:04d}.dcm").write_bytes(content)
        options = [f"-runs={objects}", f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=120", "-verbosity=0"]
        options += ["-rss_limit_mb=4096", f"-artifact_prefix={folder}/", "-len_control=0", str(begin)]
        atheris.Setup([arguments[0], *options], _target(folder, objects), custom_mutator=_mutated)
        atheris.Fuzz()


def _target(folder: Path, objects: int) -> Callable[[bytes], None]:
    """What reads one object, and reports with the last."""
    outcomes: Counter[str] = Counter()
    path = folder / "object.dcm"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        outcomes[outcome(path)] += 1
        if outcomes.total() == objects:
            report = {"objects": objects, "accounted_for": outcomes.total(), "outcomes": dict(outcomes)}
            sys.stdout.write(json.dumps(report, indent=1) + "\n")
            sys.stdout.flush()

    return read


def _mutated(content: bytes, longest: int, seed: int) -> bytes:
    """Some of libFuzzer's own changes, most of those that know what DICOM is."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret follows from it
    start = dataset_start(content)
    if start == 0:
        return rng.choice(sources())
    if rng.random() < 0.3:
        return content[:start] + bytes(atheris.Mutate(content[start:], longest - start))
    return mutate(rng, content)[:longest]


if __name__ == "__main__":
    main(sys.argv)
