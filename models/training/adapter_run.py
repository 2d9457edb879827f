"""One adapter's training from first step to last: batches, checkpoints, early stop, failures, samples."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.networks.build import Generator
from models.training.divergence import (
    Streak,
    TrainingDivergedError,
    TrainingDivergedWarning,
    discriminators_won,
    find_collapse,
    find_identity,
    require_finite,
    won_message,
)
from models.training.progress import Progress, ShowsPictures
from models.training.run import write_json
from models.training.samples import sheet, write_sheet
from models.training.stopping import EarlyStop
from models.training.styles import StyleSampler, Translator
from models.training.watching import Panel, Pictures, UnlabelledCriterion, set_aside

if TYPE_CHECKING:
    from models.training.adapter import AdapterTraining


class AdapterRun:
    """Runs an ``AdapterTraining`` to its end, or on from where a killed process left it.

    Beside the checkpoint it writes ``samples/`` and, at the end, the figures as JSON under the checkpoint's
    name.

    Args:
        training: Networks and optimisers at step 0.
        first: Unlabelled pictures of the incoming camera, uint8 (N1, S, S, 4).
        second: Pictures of the labelled camera, of other patients, uint8 (N2, S, S, 4).
        checkpoint: Where state is kept.
        progress: Told every step.
    """

    def __init__(
        self,
        training: AdapterTraining,
        first: Pictures,
        second: Pictures,
        *,
        checkpoint: Path,
        progress: Progress,
    ) -> None:
        self.training, self.checkpoint, self.progress = training, checkpoint, progress
        self.config, self.engine = training.config, training.engine
        watch, seed = self.config.watch, self.config.seed
        share = watch.held_aside if watch.patience else 0.0
        (first, first_aside), (second, second_aside) = (
            set_aside(pictures, share, seed) for pictures in (first, second)
        )
        self._pictures = first, second
        reduced = first.shape[1] // self.config.scale
        self._samplers = [StyleSampler(each, reduced, self.config.crop) for each in (first, second)]
        self._panel = Panel(first_aside, second_aside, self.engine.device)
        self._criterion = self._make_criterion(first_aside, second_aside) if watch.patience else None
        self._stop = EarlyStop(watch.patience, watch.improvement)
        self._won, self._collapsed = Streak(watch.won_window), Streak(watch.collapsed_checks)
        self._best: dict[str, Any] | None = None
        self._terms: dict[str, float] = {}
        self._complaints: list[str] = []
        self._finished = False

    def finish(self) -> Generator:
        """Train to the end, and judge what came out.

        Returns:
            The averaged G12, or the best one where training stopped early.

        Raises:
            TrainingDivergedError: It failed in a way that has a name; see ``divergence``.
        """
        if self.checkpoint.exists():
            self._resume(self.engine.load(self.checkpoint))
        else:
            self.training.start_from(*self._pictures)
        while not (self._finished or self._stop.over) and self.training.step < self.config.steps:
            self._step()
            if self.training.step % self.config.checkpoint_every == 0:
                self._check()
                self.engine.save(self.checkpoint, self._state())
        if not self._finished:
            self._conclude()
        return self.training.average.mean.eval()

    def _step(self) -> None:
        # Drawn from (seed, step), so that a resumed run sees the same pictures.
        rng = np.random.default_rng(self.engine.seed(self.config.seed, self.training.step))
        batches = [each.draw(rng, self.config.batch).to(self.engine.device) for each in self._samplers]
        self._terms = self.engine.averaged(self.training.update(batches[0], batches[1]))
        require_finite(self._terms, self.training.step)
        self.progress(self.checkpoint.stem, self.training.step, self.config.steps, self._terms)
        if self._won.see(discriminators_won(self._terms)):
            self._complain(won_message(self._won.limit, self.training.step))

    def _check(self) -> None:
        """What is looked at where a checkpoint is written."""
        translated = self._panel.translated(self.training.average.mean)
        found = find_collapse(self._panel.first[0], translated, self._panel.first[1])
        # A plain generator starts as grey, not as the identity: there only the average tells.
        certain = self._collapsed.see(
            found is not None and bool(self.config.residual or self.training.average.count)
        )
        if certain and found is not None:
            self._complain(found)
        if self._criterion is not None and self.training.average.count:
            self._look_for_the_best(self._criterion)
        every = self.config.watch.samples_every * self.config.checkpoint_every
        if every and self.training.step % every == 0:
            self._show(translated)

    def _look_for_the_best(self, criterion: UnlabelledCriterion) -> None:
        training = self.training
        terms = self.engine.averaged(criterion(training.average.mean, training.generator21))
        self.progress(f"{self.checkpoint.stem} check", training.step, self.config.steps, terms)
        if self._stop.check(terms["criterion"]):
            self._best = copy.deepcopy(training.average.mean.state_dict())

    def _conclude(self) -> None:
        """Take the best, judge it, show it, keep it."""
        generator = self.training.average.mean
        if self._best is not None:
            generator.load_state_dict(self._best)
        translated = self._panel.translated(generator)
        residual, difference = self._panel.residual(translated), self._panel.difference()
        self._show(translated)
        for found in (
            find_collapse(self._panel.first[0], translated, self._panel.first[1]),
            find_identity(residual, difference),
        ):
            if found is not None:
                self._complain(found)
        self._finished = True
        figures = {
            "residual": residual,
            "colour_apart": difference.colour,
            "sharpness_apart": difference.sharpness,
        }
        self._write_figures(figures)
        self.engine.save(self.checkpoint, self._state())

    def _write_figures(self, figures: dict[str, float]) -> None:
        best = {"best_criterion": self._stop.best} if self._best is not None else {}
        content = {
            "steps": self.training.step,
            "stopped_early": self.training.step < self.config.steps,
            "last_losses": self._terms,
            **figures,
            **best,
            "complaints": self._complaints,
        }
        if self.engine.writes:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.checkpoint.with_suffix(".json"), content)

    def _show(self, translated: Any) -> None:
        """Write a sample sheet, and give it to whoever shows pictures."""
        if not self.engine.writes:
            return
        name, step = self.checkpoint.stem, self.training.step
        rgb = sheet(self._panel.first, translated, self._panel.second, f"{name}, step {step}")
        write_sheet(self.checkpoint.parent / "samples" / f"{name}-{step:06d}.png", rgb)
        if isinstance(self.progress, ShowsPictures):
            self.progress.picture(name, step, rgb)

    def _complain(self, message: str) -> None:
        if self.config.watch.on_divergence == "raise":
            raise TrainingDivergedError(message)
        if message not in self._complaints:
            warnings.warn(message, TrainingDivergedWarning, stacklevel=2)
            self._complaints.append(message)

    def _make_criterion(self, first: Pictures, second: Pictures) -> UnlabelledCriterion:
        size, trunk = first.shape[1], copy.deepcopy(self.training.trunk)  # as it is before the first step
        return UnlabelledCriterion(
            first,
            second,
            Translator(trunk, size, False, overview=self.config.residual),
            trunk,
            batch=self.config.batch,
            reduced=size // self.config.scale,
            crop=self.config.crop,
            device=self.engine.device,
        )

    def _state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, and ``finished`` and ``complaints`` for who exports it."""
        return {
            **self.training.state(),
            "won": self._won.count,
            "collapsed": self._collapsed.count,
            "stop": self._stop.state(),
            "best": self._best,
            "losses": self._terms,
            "complaints": self._complaints,
            "finished": self._finished,
        }

    def _resume(self, state: dict[str, Any]) -> None:
        self.training.resume(state)
        self._won.count, self._collapsed.count = int(state["won"]), int(state["collapsed"])
        self._stop.resume(state["stop"])
        self._best, self._terms = state["best"], dict(state["losses"])
        self._complaints, self._finished = list(state["complaints"]), bool(state["finished"])
