"""`fundus-train classifier`."""

from __future__ import annotations

from typing import Annotated

import typer

from models.training.commands.options import Images, Labels, Lesions, Out, Seed, Threads, Training, foreseen
from models.training.lesions import LesionConfig
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources


def classifier(
    *,
    images: Images,
    labels: Labels,
    lesions: Lesions,
    out: Out,
    steps: Annotated[int, typer.Option(help="Steps of the lesion trunk.", min=1)] = LesionConfig.steps,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Train the classifier on the labelled camera and write OUT/bundle/classifier.onnx.

    Lesion masks supervise the trunk, grades the head; look-alike photographs stay on one side of the split.
    """
    config = ReferenceConfig(seed=seed, lesions=LesionConfig(steps=steps, seed=seed))
    with foreseen(), Training(out, threads) as progress:
        run = ReferenceRun(Sources(images, labels, lesions), out, config, progress)
        run.classifier(run.trunk())
    typer.echo(f"wrote {run.bundle / 'classifier.onnx'}")
