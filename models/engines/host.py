"""A chain of engines through host memory: right for every engine, best for those that compute on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.engines.base import AdapterRun, ChainOutput, Engine, EngineChoice
from models.manifest import TensorNames


@dataclass(frozen=True)
class HostChain:
    """Adapters write their rows back into the batch, which then goes to the classifier in one piece."""

    choice: EngineChoice
    classifier: Engine
    adapters: Mapping[str, Engine]
    tensors: TensorNames

    def run(
        self, image: np.ndarray, adapter_runs: Sequence[AdapterRun], *, keep_adapted: bool
    ) -> ChainOutput:
        """See ``models.engines.base.Chain.run``; overwrites ``image`` with what the classifier sees."""
        for rows in adapter_runs:
            picture = image[rows.start : rows.stop]
            picture[...] = self.adapters[rows.adapter].run(picture)[self.tensors.adapted]
        outputs = self.classifier.run(image)
        return ChainOutput(
            cumulative=outputs[self.tensors.cumulative],
            quality=outputs[self.tensors.quality],
            activation=outputs[self.tensors.activation],
            adapted=image if keep_adapted else None,
        )
