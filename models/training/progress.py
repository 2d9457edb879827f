"""Progress bars on the terminal and a line of measurements a step in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class ProgressBars:
    """One bar a stage; measurements beside it and in ``log.jsonl``.

    Call it with stage, step, steps and measurements; use it as a context.

    Args:
        folder: Run folder, which is made if need be, or None for no log.
        console: Where the bars go; standard error by default, so that results can be piped.
    """

    def __init__(self, folder: Path | None = None, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=console or Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._folder = folder
        self._log: TextIO | None = None

    def __enter__(self) -> ProgressBars:
        """Start drawing, open the log."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._log = (self._folder / "log.jsonl").open("a", encoding="utf-8")
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing, close the log."""
        self._bars.stop()
        if self._log is not None:
            self._log.close()

    def __call__(self, stage: str, step: int, steps: int, terms: dict[str, float]) -> None:
        """Show that ``step`` of ``steps`` of a stage is done."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=steps, terms=shown)
        self._bars.update(self._tasks[stage], completed=step, total=steps, terms=shown)
        if terms and self._log is not None:
            self._log.write(json.dumps({"stage": stage, "step": step, **terms}) + "\n")
            self._log.flush()
