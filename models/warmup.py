"""The first run of a bundle, before any patient's picture: does it keep its contract on this machine?

It also pays for what the first run costs (allocations, kernel choice), so that no study has to.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.bundle import Bundle
from models.engines.base import AdapterRun, Chain, ChainOutput
from models.engines.contract import output_problem
from models.errors import BundleContractError, InferenceError

REMEDY: Final = "Go back to the previous bundle; this one must be exported again."
BATCH_TOLERANCE: Final = 5e-3
"""How far a probability may depend on the size of the batch: engines choose other kernels for it."""


def sample_pictures(size: int) -> np.ndarray:
    """Two discs on black with a vignette, a bright spot and a fixed pattern; the second half as bright.

    Returns:
        uint8 (2, size, size, 4), alpha 255 inside the disc and 0 outside.
    """
    row, column = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    distance = np.hypot(row, column)
    inside = distance <= 1.0
    shade = (1.0 - 0.4 * distance**2) * (0.95 + 0.05 * np.sin(20 * row) * np.cos(14 * column))
    spot = np.exp(-(((row - 0.1) ** 2 + (column - 0.4) ** 2) / 0.01))
    colour = np.array([170.0, 90.0, 50.0])
    rgb = np.clip(shade[..., None] * colour + spot[..., None] * 70.0, 0.0, 255.0) * inside[..., None]
    alpha = inside[..., None] * 255.0
    return np.stack([np.dstack([rgb, alpha]), np.dstack([rgb * 0.5, alpha])]).astype(np.uint8)


def warm_up(bundle: Bundle, chain: Chain) -> None:
    """Run the classifier, and every adapter before it, on two sample pictures, and check all they return.

    Raises:
        BundleContractError: an output of the wrong type, shape or range; a graph that answers differently for
            one picture and for a batch, or not at all; an adapter that changes the mask.
    """
    samples = sample_pictures(bundle.manifest.size)
    together = _run(bundle, chain, samples, None)
    for index in range(len(samples)):
        alone = _run(bundle, chain, samples[index : index + 1], None)
        apart = float(np.abs(alone.cumulative[0] - together.cumulative[index]).max())
        if apart > BATCH_TOLERANCE:
            problem = f"one picture differs by {apart:.3g} when it is graded alone and in a batch"
            raise BundleContractError(bundle.classifier_path, problem, REMEDY)
    for camera, path in bundle.adapter_paths.items():
        adapted = _run(bundle, chain, samples, camera).adapted
        if adapted is None or adapted.shape != samples.shape or adapted.dtype != np.uint8:
            raise BundleContractError(path, "does not return pictures of the shape it was given", REMEDY)
        if not np.array_equal(adapted[..., 3], samples[..., 3]):
            raise BundleContractError(path, "changes alpha, the mask of the field of view", REMEDY)


def _run(bundle: Bundle, chain: Chain, samples: np.ndarray, camera: str | None) -> ChainOutput:
    runs = [] if camera is None else [AdapterRun(camera, 0, len(samples))]
    try:
        output = chain.run(samples.copy(), runs, keep_adapted=camera is not None)
    except InferenceError as error:
        raise BundleContractError(bundle.folder, f"on sample pictures, {error}", REMEDY) from error
    problem = output_problem(output, len(samples), bundle.manifest)
    if problem is not None:
        raise BundleContractError(bundle.classifier_path, f"on a sample picture, {problem}", REMEDY)
    return output
