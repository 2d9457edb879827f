"""What can be said of a new camera's adapter without a label, and the words for it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle import Bundle
from models.training import evaluate
from models.training.progress import Progress
from models.training.style_distance import StyleDistances

NO_LABELS = "none"
"""Said of held-out labelled figures where nobody measured any."""
_NEAR = 1.5
"""Times the distance within the labelled camera up to which a distance is called small."""
_GRADABLE = 0.95
"""Share of gradable photographs under which a word is due."""
_WRAP = 116
"""Columns of the model card."""


@dataclass(frozen=True)
class Answers:
    """What a bundle's classifier says of some photographs; shares of them, 0..1.

    Attributes:
        gradable: Quality at least the bundle's minimum.
        referable: Gradable, and P(grade ≥ 2) at least the referable threshold.
    """

    gradable: float
    referable: float


@dataclass(frozen=True)
class CameraFacts:
    """Everything known of an adapter when its training has ended.

    Attributes:
        camera: Key of the new camera.
        extractor: Where the feature extractor came from.
        photographs: ``first_style``, ``second_style``, ``left_out``: counts.
        compared: Photographs of each style that distances and answers are of, at most.
        data_fingerprint: SHA-256 of the files by style.
        settings: The adapter's configuration.
        training: How training ended, as ``AdapterRun`` wrote it; empty where it failed before.
        commit: Source revision.
        parity: Difference between torch and ONNX Runtime.
        distances: To the labelled camera; None where training failed.
        answers: By ``before``, ``after`` and ``labelled``; empty without a bundle.
        warnings: What a person should know.
    """

    camera: str
    extractor: str
    photographs: Mapping[str, int]
    compared: int
    data_fingerprint: Mapping[str, str]
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    commit: str
    parity: float | None = None
    distances: StyleDistances | None = None
    answers: Mapping[str, Answers] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def figures(self) -> dict[str, Any]:
        """For the manifest: JSON values, the same for the same training."""
        return {
            "held_out_labelled_figures": NO_LABELS,
            "photographs": dict(self.photographs),
            "photographs_compared": self.compared,
            "style_distance": dataclasses.asdict(self.distances) if self.distances else {},
            "answers_without_labels": {name: dataclasses.asdict(each) for name, each in self.answers.items()},
            "steps": self.training.get("steps"),
            "stopped_early": self.training.get("stopped_early"),
            "seed": self.settings["seed"],
            "data_fingerprint": dict(self.data_fingerprint),
            "extractor": self.extractor,
            "commit": self.commit,
            "parity": self.parity,
            "warnings": list(self.warnings),
        }


def answers(
    bundle: Bundle, pictures: Mapping[str, npt.NDArray[np.uint8]], progress: Progress
) -> dict[str, Answers]:
    """What a bundle's classifier says of sets of photographs.

    Args:
        bundle: The bundle.
        pictures: uint8 (N, S, S, 4) by the set's name.
        progress: Told every set.
    """
    manifest, found = bundle.manifest, {}
    for done, (name, each) in enumerate(pictures.items()):
        scores = evaluate.classify(bundle.classifier_path, each)
        gradable = scores.quality >= manifest.minimum_quality
        referable = gradable & (scores.cumulative[:, 1] >= manifest.thresholds[1])
        found[name] = Answers(float(gradable.mean()), float(referable.mean()))
        progress("classifier's answers", done + 1, len(pictures), {})
    return found


def outcome_warnings(distances: StyleDistances, said: Mapping[str, Answers]) -> Iterator[str]:
    """What is wrong with an adapter as far as unlabelled photographs can show it."""
    before, after, within = distances.before, distances.after, distances.within
    for name, what in (("colour", "colours"), ("features", "what the classifier looks at")):
        old, new = getattr(before, name), getattr(after, name)
        if new > old and new > _NEAR * getattr(within, name):
            yield (
                f"The adapter took the photographs further away from the labelled camera in {what} "
                f"({old:.3f} before, {new:.3f} after). Do not use it: train longer, or with more photographs."
            )
    if said and said["after"].gradable < min(_GRADABLE, said["labelled"].gradable):
        yield (
            f"The classifier calls only {said['after'].gradable:.0%} of the adapted photographs gradable "
            f"({said['before'].gradable:.0%} without the adapter, {said['labelled'].gradable:.0%} of the "
            "labelled camera's): the others would get no grade. Look at them: they may be bad photographs."
        )


def in_words(distances: StyleDistances) -> str:
    """One paragraph on what the adapter did to the distance between the cameras."""
    before, after, within = (getattr(distances, name).features for name in ("before", "after", "within"))
    if before <= _NEAR * within:
        return (
            "To the classifier, the two cameras' photographs differ hardly more than two groups of people by "
            "the labelled camera do. It may do as well without an adapter: measure both."
        )
    share = (before - after) / (before - within)
    if share < 0.2:
        verdict = "The adapter hardly changed that: it is not expected to help."
    elif after <= _NEAR * within:
        verdict = "With the adapter hardly more is left than other people alone make out."
    else:
        verdict = "A part is left that the adapter did not take away."
    return (
        f"In what the classifier looks at, the new camera's photographs were {before / within:.1f} times as "
        f"far from the labelled camera's as two groups of people by that camera are from each other; through "
        f"the adapter they are {after / within:.1f} times as far. {verdict}"
    )


def card_section(facts: CameraFacts) -> str:
    """The adapter's section of a bundle's model card, Markdown without its heading."""
    counts = facts.photographs
    trained = (
        f"Trained without labels on {counts['first_style']} photographs of the camera `{facts.camera}` and "
        f"{counts['second_style']} of the labelled camera, for {facts.training.get('steps')} steps (seed "
        f"{facts.settings['seed']}), against the feature extractor of {facts.extractor}. It is for that "
        "camera alone."
    )
    lines = [
        "**Not measured on labelled photographs: how often it makes a decision wrong is not known.**",
        "",
        *textwrap.wrap(trained, _WRAP),
    ]
    if facts.distances is not None:
        lines += [
            "",
            "Distance to the labelled camera's style, on photographs that trained it (0 is the same style):",
            "",
            "| | colour | sharpness | classifier's features |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {label} | {each.colour:.3f} | {each.sharpness:.2f} | {each.features:.3f} |"
            for label, each in distance_rows(facts.distances)
        ]
    if facts.warnings:
        lines += ["", "Warnings:", "", *map(_item, facts.warnings)]
    return "\n".join(lines)


def _item(text: str) -> str:
    return textwrap.fill(text, _WRAP, initial_indent="- ", subsequent_indent="  ")


def distance_rows(distances: StyleDistances) -> Iterator[tuple[str, Any]]:
    """Label and distance, in the order of tables."""
    yield "new camera, without adapter", distances.before
    yield "new camera, through the adapter", distances.after
    yield "two halves of the labelled camera's own", distances.within
