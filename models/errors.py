"""Errors of the models package: ``ModelError`` is the root, one subclass per thing a caller decides on."""

from __future__ import annotations

from pathlib import Path


class ModelError(Exception):
    """Root of every error that this package raises on purpose."""


class NoFieldOfViewError(ModelError):
    """The picture holds no round, lit field of view: it is no fundus photograph that could be graded."""

    reason_code = "NOT_A_FUNDUS_PHOTOGRAPH"
    retryable = False


class BundleError(ModelError):
    """A model bundle that must not be used; the message names the file, the problem and the remedy.

    Attributes:
        file: the file or folder at fault.
        problem: what is wrong with it, one sentence without a full stop.
        remedy: what the administrator does about it.
    """

    def __init__(self, file: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file = file
        self.problem = problem
        self.remedy = remedy


class BundleNotFoundError(BundleError):
    """There is no bundle of that name or at that path."""


class ManifestError(BundleError):
    """``manifest.json`` is not what a manifest of this schema version is; ``field`` says where.

    Attributes:
        field: dotted path of the offending field, empty when the file as a whole is at fault.
    """

    def __init__(self, file: Path, field: str, problem: str, remedy: str) -> None:
        super().__init__(file, f"field '{field}': {problem}" if field else problem, remedy)
        self.field = field


class BundleFilesError(BundleError):
    """A file is missing from the bundle, or one is there that its manifest does not list."""


class BundleChecksumError(BundleError):
    """A file's SHA-256 is not the one in the manifest: damaged, or changed after it was sealed."""


class BundleContractError(BundleError):
    """A graph of the bundle does not keep the contract: names, types, shapes, or the values it returns."""


class EngineUnavailableError(ModelError):
    """The engine asked for cannot run here.

    Attributes:
        engine: its name in the configuration.
        remedy: what the administrator does about it.
    """

    def __init__(self, engine: str, problem: str, remedy: str) -> None:
        super().__init__(f"engine '{engine}': {problem}. {remedy}")
        self.engine = engine
        self.remedy = remedy


class UnknownAdapterError(ModelError):
    """A picture was to go through an adapter that the bundle does not hold."""


class ImageContractError(ModelError):
    """A picture handed to the predictor is not a uint8 array (S, S, 4) of the bundle's size."""


class InferenceError(ModelError):
    """An engine failed while running a graph; another attempt, or a smaller batch, may succeed."""

    retryable = True
