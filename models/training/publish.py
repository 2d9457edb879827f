"""Turn a finished run into a bundle, or add a camera to a copy of one: manifest, model card, checksums."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.bundle import Bundle, seal_bundle
from models.manifest import (
    ADAPTERS_FOLDER,
    CAMERA_KEY,
    MANIFEST_FILE,
    MODEL_CARD_FILE,
    AdapterEntry,
    Manifest,
    Slug,
)
from models.training.data import DataError
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
VERSION = "0.4.0"
TRAINING_CAMERA = "kowa-vx-10"
FIGURES = (
    "photographs",
    "out_of_fold",
    "cross_validated",
    "held_out",
    "macular_oedema",
    "quality",
    "cameras",
)
"""What of a run's results the manifest keeps."""
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
        figures={name: results[name] for name in FIGURES},
    )
    (folder / "MODEL_CARD.md").write_text(model_card(results), encoding="utf-8")
    return seal_bundle(folder, manifest)


def model_card(results: Mapping[str, Any]) -> str:
    """The model card in Markdown, with the figures of this run."""
    counts, held_out, quality = results["photographs"], results["held_out"], results["quality"]
    crossed, oedema = results["cross_validated"], results["macular_oedema"]
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
        **{
            f"{name}_{end}": held_out[f"calibration_{name}_{end}"]
            for name in ("slope", "intercept")
            for end in ("low", "high")
        },
        oof_auc=results["out_of_fold"]["auc_referable"],
        oof_sensitivity=results["out_of_fold"]["sensitivity"],
        oof_specificity=results["out_of_fold"]["specificity"],
        cv_auc=crossed["auc_referable"],
        cv_kappa=crossed["quadratic_kappa"],
        oedema=_oedema_sentence(oedema),
        minimum=quality["minimum"],
        refused=quality["gradable_refused"],
        accepted=quality["ungradable_accepted"],
        quality_auc=quality["auc"],
        table=_camera_table(results["cameras"]),
    )


def _oedema_sentence(figures: Mapping[str, float]) -> str:
    if not figures["photographs"]:
        return "No photograph was labelled for macular oedema: that output knows nothing."
    sentence = (
        f"Risk of macular oedema (not used by the worker): out of fold AUC {figures['auc_any']:.3f} for any, "
        f"{figures['auc_high']:.3f} for the highest risk"
    )
    if "held_out_auc_any" in figures:
        held_out = f"{figures['held_out_auc_any']:.3f} and {figures['held_out_auc_high']:.3f}"
        sentence += f"; held out {held_out}"
    return sentence + "."


def _camera_table(cameras: Mapping[str, Any]) -> str:
    lines = []
    for key, figures in cameras.items():
        for kind in ("unadapted", "adapted"):
            if kind in figures:
                row = figures[kind]
                interval = f"{row['flipped_low']:.0%} to {row['flipped_high']:.0%}"
                measured = f"{row['auc']:.3f} | {row['sensitivity']:.2f} | {row['specificity']:.2f}"
                flips = f"{row['flipped']:.1%} ({interval})"
                shares = f"{flips} | {row['decided_otherwise']:.1%} | {row['graded']:.0%}"
                lines.append(f"| {key} | {kind} | {measured} | {shares} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class NewCamera:
    """Where a new camera's adapter is to go; refused where it cannot.

    Attributes:
        bundle: The bundle that is extended; it is never changed, a copy is.
        camera: Key of the new camera.
        bundle_id: Id of the extended copy; by default the bundle's, ``+`` and the camera.
        replace: Whether an adapter that the bundle has for this camera may be replaced.

    Raises:
        DataError: ``camera`` is no camera key, is the labelled camera, or has an adapter that may not be
            replaced; or ``bundle_id`` is no bundle id.
    """

    bundle: Bundle
    camera: str
    bundle_id: str = ""
    replace: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be, before hours of training."""
        require_camera_key(self.camera)
        manifest = self.bundle.manifest
        if self.camera == manifest.training_camera:
            raise DataError(f"{self.camera} is the labelled camera of {manifest.id}: it needs no adapter")
        if self.camera in manifest.adapters and not self.replace:
            raise DataError(
                f"{manifest.id} has an adapter for {self.camera}: give --replace to replace it in the copy, "
                "or another --camera"
            )
        try:
            TypeAdapter(Slug).validate_python(self.id)
        except ValidationError as error:
            raise DataError(
                f"{self.id!r} is no bundle id: letters, digits and . _ + -, at most 64; set --bundle-id"
            ) from error

    @property
    def id(self) -> str:
        """Id of the extended copy."""
        own = self.bundle.manifest.id
        return self.bundle_id or (own if self._extends_itself else f"{own}+{self.camera}")

    @property
    def _extends_itself(self) -> bool:
        """Whether the bundle is one that this camera was added to before."""
        return self.bundle.manifest.id.endswith(f"+{self.camera}")


def require_camera_key(camera: str) -> None:
    """Refuse what is no camera key.

    Raises:
        DataError: It is not lower-case words joined by hyphens.
    """
    if CAMERA_KEY.fullmatch(camera) is None:
        raise DataError(f"camera key {camera!r} must be lower-case words joined by hyphens")


def add_adapter(
    place: NewCamera, graph: Path, figures: Mapping[str, Any], card: str, destination: Path
) -> Bundle:
    """Write a copy of a bundle that has one more adapter, and seal it.

    The copy's version is the bundle's with a mark of the adapter's content, so that two trainings for one
    camera are told apart in SQL and in reports. The same adapter again leaves the same bytes; another one
    replaces the whole folder once the new one is complete.

    Args:
        place: Bundle and camera.
        graph: The adapter, ONNX.
        figures: What is known of it, JSON values.
        card: Its section of the model card, Markdown without the heading.
        destination: Folder of the copy.

    Returns:
        The sealed copy.
    """
    source, camera = place.bundle, place.camera
    work = destination.with_name(f"{destination.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    for name in source.manifest.files:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, work / name)
    file = f"{ADAPTERS_FOLDER}/{camera}.onnx"
    (work / file).parent.mkdir(exist_ok=True)
    shutil.copyfile(graph, work / file)
    _extend_card(work / MODEL_CARD_FILE, camera, card, replaces=camera in source.manifest.adapters)
    manifest = replace(
        source.manifest,
        id=place.id,
        version=_version(source.manifest.version, graph),
        adapters={**source.manifest.adapters, camera: AdapterEntry(file, dict(figures))},
        figures=_without_camera(source.manifest.figures, camera),
    )
    seal_bundle(work, manifest)
    if _same_manifest(work, destination):
        shutil.rmtree(work)
    else:
        if destination.exists():
            shutil.rmtree(destination)
        work.replace(destination)
    return Bundle.load(destination)


def _version(version: str, graph: Path) -> str:
    """The bundle's version without an earlier mark, and eight digits of the adapter's SHA-256."""
    mark = hashlib.sha256(graph.read_bytes()).hexdigest()[:8]
    return f"{version.partition('+')[0][:55]}+{mark}"


def _same_manifest(one: Path, other: Path) -> bool:
    file = other / MANIFEST_FILE
    return file.is_file() and file.read_bytes() == (one / MANIFEST_FILE).read_bytes()


def _extend_card(file: Path, camera: str, card: str, *, replaces: bool) -> None:
    """Put the section of a camera at the end of a model card, in place of one that it has."""
    heading = f"## Added adapter: {camera}"
    text = file.read_text(encoding="utf-8")
    text = re.sub(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    earlier = (
        f"It replaces an adapter of the same camera: every other figure of {camera} *with* an adapter above "
        "is of that one.\n\n"
    )
    file.write_text(f"{text.rstrip()}\n\n{heading}\n\n{earlier if replaces else ''}{card.strip()}\n", "utf-8")


def _without_camera(figures: Mapping[str, Any], camera: str) -> dict[str, Any]:
    """The bundle's figures without those of an adapter that is replaced."""
    cameras = figures.get("cameras")
    if not isinstance(cameras, dict) or camera not in cameras:
        return dict(figures)
    kept = {key: value for key, value in cameras.items() if key != camera}
    return {**figures, "cameras": kept}
