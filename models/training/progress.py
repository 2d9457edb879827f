"""Progress bars on the terminal; measurements of every step in the run folder: lines, and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO, runtime_checkable

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with stage, step, steps and the latest measurements."""


@runtime_checkable
class ShowsPictures(Protocol):
    """A ``Progress`` that can also show a picture."""

    def picture(self, stage: str, step: int, rgb: npt.NDArray[np.uint8]) -> None:
        """Show an RGB picture, uint8 (H, W, 3), made after ``step`` of a stage."""


class ProgressBars:
    """One bar a stage; measurements beside it, in ``log.jsonl`` and in ``tensorboard/``.

    Call it with stage, step, steps and measurements; use it as a context.

    Args:
        folder: Run folder, which is made if need be, or None for no log.
        console: Where the bars go; standard error by default, so that results can be piped.
    """

    def __init__(self, folder: Path | None = None, console: Console | None = None) -> None:
        self._bars = Bars(
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
        self._board: SummaryWriter | None = None

    def __enter__(self) -> ProgressBars:
        """Start drawing; the logs are opened with the first measurement, so a refused start leaves none."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing, close the log."""
        self._bars.stop()
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()

    def __call__(self, stage: str, step: int, steps: int, terms: dict[str, float]) -> None:
        """Show that ``step`` of ``steps`` of a stage is done."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=steps, terms=shown)
        self._bars.update(self._tasks[stage], completed=step, total=steps, terms=shown)
        if terms and self._folder is not None:
            self._record(self._folder, stage, step, terms)

    def picture(self, stage: str, step: int, rgb: npt.NDArray[np.uint8]) -> None:
        """Give a picture to TensorBoard, RGB uint8 (H, W, 3)."""
        if self._folder is not None:
            self._curves(self._folder).add_image(stage, rgb, step, dataformats="HWC")

    def _record(self, folder: Path, stage: str, step: int, terms: dict[str, float]) -> None:
        if self._log is None:
            folder.mkdir(parents=True, exist_ok=True)
            self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._log.write(json.dumps({"stage": stage, "step": step, **terms}) + "\n")
        self._log.flush()
        for name, value in terms.items():
            self._curves(folder).add_scalar(f"{stage}/{name}", value, step)

    def _curves(self, folder: Path) -> SummaryWriter:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # needed by trainings only

            self._board = SummaryWriter(str(folder / "tensorboard"))
        return self._board
