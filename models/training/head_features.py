"""What the ordinal heads are fitted on: features of photographs and of degraded versions of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.networks.classifier import FundusClassifier
from models.networks.features import split_rgba
from models.training.perturb import degraded
from models.training.progress import Progress

FloatArray = npt.NDArray[np.float64]


def head_features(
    network: FundusClassifier,
    pictures: npt.NDArray[np.uint8],
    versions: int,
    *,
    kept: Path,
    progress: Progress,
) -> FloatArray:
    """Features by ``FundusClassifier.features``.

    Args:
        network: Its trunk is trained.
        pictures: Prepared photographs, uint8 (N, S, S, 4).
        versions: Degraded versions of each besides the photograph itself.
        kept: ``.npy`` file of a run that was killed later on; written where it is missing.
        progress: Told every photograph.

    Returns:
        float64 (1 + versions, N, F); version 0 is the photograph itself.
    """
    if kept.exists():
        return np.asarray(np.load(kept), dtype=np.float64)
    rows = []
    for index, picture in enumerate(pictures):
        rows.append(np.stack([_features(network, each) for each in _versions(picture, versions, index)]))
        progress("lesion summaries", index + 1, len(pictures), {})
    found = np.stack(rows, axis=1).astype(np.float64)
    temporary = kept.with_suffix(".partial.npy")
    np.save(temporary, found)
    temporary.replace(kept)
    return found


def _versions(picture: npt.NDArray[np.uint8], versions: int, index: int) -> Iterator[npt.NDArray[np.uint8]]:
    yield picture
    for version in range(versions):
        yield degraded(picture, np.random.default_rng((version, index)))


@torch.inference_mode()
def _features(network: FundusClassifier, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    rgb, mask = split_rgba(torch.from_numpy(np.ascontiguousarray(picture[None])))
    return np.asarray(network.features(rgb, mask)[0][0].numpy(), dtype=np.float32)
