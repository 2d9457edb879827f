"""Mutate the corpus against header and pixels, as many objects as wanted, and account for every one.

`make fuzz OBJECTS=1000000 SEED=7`. A child process reads the objects; when it dies or hangs, the object
counts as `died` or `hung`, its file is kept, and another child goes on with the next one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
from corpus.mutation import mutated
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

HANGING_S = 120.0
"""An object that takes longer counts as hanging; on a loaded machine all take longer."""
_WARM = 2000
"""Objects after which a child has imported and allocated what it ever needs."""
CHILD = (sys.executable, "-m", "corpus.fuzz_child")
app = typer.Typer(add_completion=False)


@dataclass
class Account:
    """What became of the objects.

    Attributes:
        outcomes: Objects by outcome: "read", a reason code, "error: …" for an unnamed exception, "died: …",
            "hung".
        failed: Numbers of the objects that ended in none of the first two.
        warm_bytes: Resident memory of a child once it is warm; 0 before.
        peak_bytes: The most that was seen.
        last_bytes: The last that was seen.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    warm_bytes: int = 0
    peak_bytes: int = 0
    last_bytes: int = 0

    def add(self, number: int, ended: str) -> None:
        """Count one object."""
        self.outcomes[ended] += 1
        if ended.startswith(("error: ", "died: ", "hung")):
            self.failed.append(number)

    def weigh(self, resident_bytes: int, done: int) -> None:
        """Note the memory of a child that has read `done` objects."""
        self.last_bytes = resident_bytes
        self.peak_bytes = max(self.peak_bytes, resident_bytes)
        if done >= _WARM and not self.warm_bytes:
            self.warm_bytes = resident_bytes


def run(seed: int, objects: int, *, first: int = 0, child: Sequence[str] = CHILD) -> Iterator[Account]:
    """Read objects `first` to `first + objects` of a run; yields the account after each.

    Args:
        seed: Of the run.
        objects: How many.
        first: Number of the first one.
        child: Command of the reading process; seed, first and last number are put behind it.
    """
    account = Account()
    number, end = first, first + objects
    while number < end:
        with _Child([*child, str(seed), str(number), str(end)]) as reading:
            begun = number
            while number < end:
                ended = reading.ending()
                account.add(number, ended)
                number += 1
                if number % 100 == 0:
                    account.weigh(reading.resident_bytes(), number - begun)
                yield account
                if reading.gone:
                    break


class _Child:
    """A process of its own that reads objects and says how each ended, a line an object."""

    def __init__(self, command: Sequence[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self._looked_at = psutil.Process(self._process.pid)
        self._hung = False
        self.gone = False

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ending(self) -> str:
        """How the next object ended; that the process died or hung over it, after which it is `gone`."""
        assert self._process.stdout is not None
        timer = threading.Timer(HANGING_S, self._end)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return line[:-1]
        self.gone = True
        return "hung" if self._hung else f"died: {self._process.wait()}"

    def resident_bytes(self) -> int:
        """Memory in RAM; 0 when the process has just ended."""
        try:
            return int(self._looked_at.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def _end(self) -> None:
        self._hung = True
        self._process.kill()


@app.command()
def fuzz(
    objects: Annotated[int, typer.Option(help="How many.")] = 100_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same objects.")] = 1,
    first: Annotated[int, typer.Option(help="Number of the first one.")] = 0,
    keep: Annotated[Path, typer.Option(help="Folder for the files of those that fail.")] = Path("build/fuzz"),
) -> None:
    """Mutate files of the corpus, read each, and count how they end; exit with 1 when one fails.

    Ctrl-C ends the run early, with the figures so far.
    """
    account, started = Account(), time.monotonic()
    with suppress(KeyboardInterrupt), _progress(objects) as show:
        for account in run(seed, objects, first=first):
            show(account)
    for number in account.failed:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{seed}-{number}.dcm").write_bytes(mutated(seed, number))
    report = {
        "asked_for": objects,
        "accounted_for": (read := account.outcomes.total()),
        "outcomes": dict(account.outcomes.most_common()),
        "failed": account.failed[:20],
        "resident_mb": {
            "warm": round(account.warm_bytes / 1e6),
            "last": round(account.last_bytes / 1e6),
            "peak": round(account.peak_bytes / 1e6),
        },
        "objects_per_s": round(read / (time.monotonic() - started), 1),
    }
    typer.echo(json.dumps(report, indent=1))
    if account.failed:
        typer.echo(f"{len(account.failed)} objects failed; their files are in {keep}", err=True)
    if account.failed or read != objects:
        raise typer.Exit(1)


@contextmanager
def _progress(objects: int) -> Iterator[Callable[[Account], None]]:
    """A bar with the child's memory and the number that failed."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=objects, now="")

        def show(account: Account) -> None:
            done = account.outcomes.total()
            if done % 50 == 0 or done == objects:
                now = f"{account.last_bytes / 1e6:.0f} MB, {len(account.failed)} failed"
                progress.update(task, completed=done, now=now)

        yield show


if __name__ == "__main__":
    app()
