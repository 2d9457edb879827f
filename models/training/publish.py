"""Turn a finished run into a bundle: manifest, model card, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.bundle import Bundle, seal_bundle
from models.manifest import AdapterEntry, Manifest
from models.training.export import OPSET
from models.training.run import commit

LABELS = (
    "No apparent diabetic retinopathy",
    "Mild non-proliferative diabetic retinopathy",
    "Moderate non-proliferative diabetic retinopathy",
    "Severe non-proliferative diabetic retinopathy",
    "Proliferative diabetic retinopathy",
)
ACTIVATIONS = ("microaneurysms", "haemorrhages", "hard exudates", "soft exudates")
VERSION = "0.1.0"
TRAINING_CAMERA = "kowa-vx-10"
CARD = Path(__file__).parent / "model_card.md"
"""Template of the model card, filled with the figures of a run."""


def publish(folder: Path, size: int, fingerprint: str, results: Mapping[str, Any]) -> Bundle:
    """Write model card and manifest of a folder that holds the graphs, and seal it.

    Args:
        folder: Holds ``classifier.onnx`` and ``adapters/``.
        size: Side S of the input in pixels.
        fingerprint: Of the training data.
        results: ``head``, ``quality``, ``cameras`` and so on, as ``reproduce`` measured them.

    Returns:
        The sealed bundle.
    """
    adapters = {
        path.stem: AdapterEntry(f"adapters/{path.name}", results["cameras"].get(path.stem, {}))
        for path in sorted((folder / "adapters").glob("*.onnx"))
    }
    head = results["head"]
    manifest = Manifest(
        id="reference",
        version=VERSION,
        commit=commit(),
        data_fingerprint=fingerprint,
        labels=LABELS,
        size=size,
        opset=OPSET,
        thresholds=tuple(head["thresholds"]),
        minimum_quality=results["quality"]["minimum"],
        activation_labels=ACTIVATIONS,
        training_camera=TRAINING_CAMERA,
        adapters=adapters,
        calibration=head["calibration"],
        figures={
            name: results[name] for name in ("photographs", "out_of_fold", "held_out", "quality", "cameras")
        },
    )
    (folder / "MODEL_CARD.md").write_text(model_card(results), encoding="utf-8")
    return seal_bundle(folder, manifest)


def model_card(results: Mapping[str, Any]) -> str:
    """The model card in Markdown, with the figures of this run."""
    counts, held_out, quality = results["photographs"], results["held_out"], results["quality"]
    return CARD.read_text(encoding="utf-8").format(
        train=counts["train"],
        validation=counts["validation"],
        test=counts["test"],
        lesions=counts["lesions"],
        groups=counts["groups"],
        auc=held_out["auc"],
        auc_low=held_out["auc_low"],
        auc_high=held_out["auc_high"],
        sensitivity=held_out["sensitivity"],
        specificity=held_out["specificity"],
        kappa=held_out["quadratic_kappa"],
        slope=held_out["calibration_slope"],
        intercept=held_out["calibration_intercept"],
        oof_auc=results["out_of_fold"]["auc_referable"],
        oof_sensitivity=results["out_of_fold"]["sensitivity"],
        oof_specificity=results["out_of_fold"]["specificity"],
        minimum=quality["minimum"],
        refused=quality["gradable_refused"],
        accepted=quality["ungradable_accepted"],
        quality_auc=quality["auc"],
        table=_camera_table(results["cameras"]),
    )


def _camera_table(cameras: Mapping[str, Any]) -> str:
    lines = []
    for key, figures in cameras.items():
        for kind in ("unadapted", "adapted"):
            if kind in figures:
                row = figures[kind]
                interval = f"{row['flipped_low']:.0%} to {row['flipped_high']:.0%}"
                measured = f"{row['auc']:.3f} | {row['sensitivity']:.2f} | {row['specificity']:.2f}"
                flips = f"{row['flipped']:.1%} ({interval})"
                lines.append(f"| {key} | {kind} | {measured} | {flips} | {row['graded']:.0%} |")
    return "\n".join(lines)
