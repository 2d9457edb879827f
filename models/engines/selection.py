"""Which engine runs a bundle here: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnxruntime
import structlog

from models.bundle import Bundle
from models.engines.base import Chain, EngineChoice
from models.engines.onnx import CUDA, open_onnx_chain
from models.errors import EngineUnavailableError

ENGINES: Final = ("auto", "onnx", "tensorrt")
"""What the configuration may ask for."""

log = structlog.get_logger(__name__)


def open_chain(bundle: Bundle, engine: str, threads: int, *, providers: Sequence[str] | None = None) -> Chain:
    """Load a bundle's graphs into the engine that was asked for, or into the best one that works here.

    Args:
        bundle: a verified bundle.
        engine: ``onnx`` (ONNX Runtime on the CPU), ``tensorrt``, or ``auto``: the fastest that works here.
        threads: threads for one run on the CPU, at least 1.
        providers: ONNX Runtime's execution providers to count on; default: those that it says it has.

    Raises:
        EngineUnavailableError: the engine asked for by name cannot run here. ``auto`` falls back instead,
            says so in the log, and gives the reason in the chain's ``choice``.
        BundleContractError: a graph cannot be loaded, or does not keep the contract.
    """
    if engine == "onnx":
        return open_onnx_chain(bundle, EngineChoice("onnx", "cpu", "as configured"), threads)
    if engine == "auto":
        available = onnxruntime.get_available_providers() if providers is None else providers
        return _best(bundle, threads, available)
    if engine == "tensorrt":
        remedy = "Set engine = 'auto' or 'onnx'."
        raise EngineUnavailableError(engine, "this version cannot run TensorRT yet", remedy)
    raise EngineUnavailableError(engine, "there is no such engine", f"Use one of {', '.join(ENGINES)}.")


def _best(bundle: Bundle, threads: int, providers: Sequence[str]) -> Chain:
    reason = "auto: no TensorRT in this version, no CUDA provider in ONNX Runtime"
    if CUDA in providers:
        choice = EngineChoice(
            "onnx", "cuda", "auto: no TensorRT in this version, ONNX Runtime has its CUDA provider"
        )
        try:
            return open_onnx_chain(bundle, choice, threads)
        except EngineUnavailableError as error:
            reason = f"auto: {error}"
            log.warning("engine_fell_back", bundle_id=bundle.manifest.id, engine="onnx", reason=str(error))
    return open_onnx_chain(bundle, EngineChoice("onnx", "cpu", reason), threads)
