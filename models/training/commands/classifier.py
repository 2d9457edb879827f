"""`fundus-train classifier`."""

from __future__ import annotations

import typer

from models.training.commands.configured import configured
from models.training.commands.options import Images, Labels, Lesions, Out, Training, foreseen, one_device
from models.training.engine import EngineConfig
from models.training.reproduce import ReferenceConfig, ReferenceRun, Sources


@configured(ReferenceConfig)
def classifier(
    config: ReferenceConfig,
    engine: EngineConfig,
    *,
    images: Images,
    labels: Labels,
    lesions: Lesions,
    out: Out,
) -> None:
    """Train the classifier on the labelled camera and write OUT/bundle/classifier.onnx.

    Lesion masks supervise the trunk, grades the head; look-alike photographs stay on one side of the split.
    The settings are those of `reproduce reference`, which goes on from the same run folder to adapters and
    figures. The same command continues a killed run; `tensorboard --logdir OUT` draws its curves.
    """
    with foreseen(), Training(out, engine.threads) as progress:
        run = ReferenceRun(Sources(images, labels, lesions), out, config, progress, one_device(engine))
        run.classifier(run.trunk())
    typer.echo(f"wrote {run.bundle / 'classifier.onnx'}")
