"""The process that reads mutated objects: `python -m corpus.fuzz_child SEED FIRST END`, a line an object."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

from corpus.mutation import mutated
from corpus.reading import outcome


def main(arguments: list[str]) -> None:
    """Read objects from FIRST up to END of the run SEED."""
    seed, first, end = (int(each) for each in arguments)
    warnings.simplefilter("ignore")  # as in the worker, where the log takes them
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        path = Path(folder) / "object.dcm"
        for number in range(first, end):
            path.write_bytes(mutated(seed, number))
            sys.stdout.write(named_outcome(path) + "\n")
            sys.stdout.flush()


def named_outcome(path: Path) -> str:
    """`outcome`, or the type of what was raised instead of a refusal."""
    try:
        return outcome(path)
    except Exception as error:  # what is looked for
        return f"error: {type(error).__name__}"


if __name__ == "__main__":
    main(sys.argv[1:])
