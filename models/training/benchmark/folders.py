"""Measure a finished bundle on a folder of labelled photographs, and on the same ones by another camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle
from models.training import evaluate
from models.training.data import DataError, prepare_all, read_folder
from models.training.lesions import Progress


def measure(
    source: str,
    images: Path,
    labels: Path,
    *,
    shifted: Path | None,
    camera: str | None,
    progress: Progress,
) -> dict[str, Any]:
    """Figures of a bundle.

    Args:
        source: A bundle's name or folder.
        images: Photographs of the labelled camera.
        labels: Their grades.
        shifted: The same photographs, same names, by another camera.
        camera: Key of the adapter to use on those.
        progress: Told what is done.

    Returns:
        ``unshifted`` and, with ``shifted``, ``unadapted`` and ``adapted`` figures.

    Raises:
        DataError: A photograph is missing in ``shifted``, or the bundle has no such adapter.
    """
    bundle = Bundle.load(source)
    manifest = bundle.manifest
    if camera is not None and camera not in manifest.adapters:
        raise DataError(
            f"the bundle has no adapter for {camera!r}; it has {', '.join(sorted(manifest.adapters))}"
        )
    photographs = read_folder(images, labels)
    grades = np.array([photo.grade for photo in photographs], dtype=np.int64)
    point = evaluate.OperatingPoint(manifest.thresholds, manifest.minimum_quality)
    oracle = evaluate.classify(
        bundle.classifier_path, prepare_all([photo.path for photo in photographs], manifest.size)
    )
    progress("unshifted", 1, 1, {})
    low, high = evaluate.auc_interval(oracle, grades)
    unshifted = {**evaluate.referable_figures(oracle, grades, point), "auc_low": low, "auc_high": high}
    if shifted is None:
        return {"unshifted": unshifted}
    files = {photo.name: photo.path for photo in read_folder(shifted)}
    missing = [photo.name for photo in photographs if photo.name not in files]
    if missing:
        raise DataError(f"{shifted} lacks {len(missing)} of the photographs, first {missing[0]}")
    taken = prepare_all([files[photo.name] for photo in photographs], manifest.size)
    plain = evaluate.classify(bundle.classifier_path, taken)
    progress("unadapted", 1, 1, {})
    adapted = None
    if camera is not None:
        pictures = evaluate.adapt(bundle.adapter_paths[camera], taken)
        adapted = evaluate.classify(bundle.classifier_path, pictures)
        progress("adapted", 1, 1, {})
    return {"unshifted": unshifted, **evaluate.camera_figures(oracle, plain, adapted, grades, point)}
