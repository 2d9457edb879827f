"""Cost of every method, of the classifier and of EfficientNet-B0, timed interleaved on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime

from models.training.benchmark.efficientnet import efficientnet_b0

YARDSTICK = "efficientnet-b0"


def interleaved_ms(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each case over ``rounds``, after one round that does not count.

    Every round runs all cases in turn, so that whatever else the machine does slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(rounds + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if round_number > 0:
                times[name].append(1000.0 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def yardstick(size: int, threads: int) -> Callable[[], object]:
    """One run of EfficientNet-B0 on one picture of side ``size``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        efficientnet_b0().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    return lambda: session.run(None, {"image": image})
