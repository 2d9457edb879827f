"""The manifest of a model bundle: what the graphs are, where they came from, what was measured on them.

``manifest.json`` is parsed strictly: an unknown field, a missing one, or a value of another type is refused
by name. Figures and calibration are the trainer's own records and are kept as they are.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from models.errors import ManifestError

SCHEMA_VERSION: Final = 1
MANIFEST_FILE: Final = "manifest.json"
MODEL_CARD_FILE: Final = "MODEL_CARD.md"
CLASSIFIER_FILE: Final = "classifier.onnx"
ADAPTERS_FOLDER: Final = "adapters"
GRADES: Final = 5
"""Grades of the international clinical diabetic retinopathy scale, 0 to 4."""
CAMERA_KEY: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""How a camera's key is written; it is also the stem of its adapter's file name."""

_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _bundle_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or str(path) != value or value in ("", "."):
        raise ValueError("must be a plain path inside the bundle, with forward slashes")
    return value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not name the same thing twice")
    return values


Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=False)]
Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]
"""Bundle id and version: both go into the SR's long strings (LO, 64 characters)."""
CameraKey = Annotated[str, StringConstraints(pattern=f"^{CAMERA_KEY.pattern}$", max_length=64)]
BundlePath = Annotated[str, AfterValidator(_bundle_path)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(gt=0.0, le=1.0)]
Labels = Annotated[tuple[Text, Text, Text, Text, Text], AfterValidator(_distinct)]


@dataclass(frozen=True, config=_CONFIG)
class TensorNames:
    """Names of the graphs' inputs and outputs; the defaults are what this project exports.

    Attributes:
        image: input of every graph, uint8 (N, S, S, 4): RGB and the field-of-view mask as alpha 0/255.
        adapted: output of an adapter, of the same shape and type, alpha untouched.
        cumulative: float32 (N, 4), calibrated P(grade ≥ k) for k = 1 … 4, non-increasing in k.
        quality: float32 (N, 1), probability that the picture is a gradable colour fundus photograph.
        activation: uint8 (N, K, h, w), one map per activation label.
    """

    image: Text = "image"
    adapted: Text = "adapted"
    cumulative: Text = "cumulative"
    quality: Text = "quality"
    activation: Text = "activation"


@dataclass(frozen=True, config=_CONFIG)
class AdapterEntry:
    """One camera's adapter.

    Attributes:
        file: path of its graph inside the bundle, ``adapters/<camera>.onnx``.
        figures: what was measured with it, as the trainer wrote it.
    """

    file: BundlePath
    figures: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class Manifest:
    """Everything known about a bundle. Invalid ones cannot be constructed (``pydantic.ValidationError``).

    Attributes:
        id: name of the bundle, as it appears in SQL and in the SR.
        version: version of the bundle.
        commit: source revision that trained it.
        data_fingerprint: fingerprint of the training data.
        labels: the five grades' names, 0 to 4.
        size: S, side of the input in pixels.
        opset: ONNX opset of the graphs, at least 17.
        thresholds: probability at which P(grade ≥ k) counts as reached, k = 1 … 4; the second is the
            referable one.
        minimum_quality: quality under which a picture is called ungradable, 0 to 1.
        activation_labels: names of the activation maps, in their order.
        training_camera: key of the labelled camera, whose pictures need no adapter.
        adapters: the other cameras' adapters, by camera key.
        calibration: how the probabilities were calibrated, as the trainer wrote it.
        figures: what was measured on the bundle, as the trainer wrote it.
        files: SHA-256 of every file but the manifest, by path; empty until the bundle is sealed.
        tensors: names of the graphs' inputs and outputs.
        schema_version: version of this schema.
    """

    id: Slug
    version: Slug
    commit: Text
    data_fingerprint: Text
    labels: Labels
    size: Annotated[int, Field(ge=32, le=4096)]
    opset: Annotated[int, Field(ge=17)]
    thresholds: tuple[Probability, Probability, Probability, Probability]
    minimum_quality: Annotated[float, Field(ge=0.0, le=1.0)]
    activation_labels: Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_distinct)]
    training_camera: CameraKey
    adapters: dict[CameraKey, AdapterEntry] = Field(default_factory=dict)
    calibration: dict[str, JsonValue] = Field(default_factory=dict)
    figures: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[BundlePath, Sha256] = Field(default_factory=dict)
    tensors: TensorNames = Field(default_factory=TensorNames)
    schema_version: Literal[1] = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.training_camera in self.adapters:
            raise ValueError(
                f"'{self.training_camera}' is the labelled camera and cannot have an adapter too"
            )
        for camera, entry in self.adapters.items():
            if entry.file != f"{ADAPTERS_FOLDER}/{camera}.onnx":
                raise ValueError(f"the adapter of '{camera}' must be {ADAPTERS_FOLDER}/{camera}.onnx")

    @property
    def required_files(self) -> frozenset[str]:
        """Paths that a bundle with this manifest must hold besides the manifest itself."""
        return frozenset(
            {CLASSIFIER_FILE, MODEL_CARD_FILE, *(entry.file for entry in self.adapters.values())}
        )


_ADAPTER: Final[TypeAdapter[Manifest]] = TypeAdapter(Manifest)


def to_json(manifest: Manifest) -> bytes:
    """The manifest as the UTF-8 text of ``manifest.json``; the same manifest gives the same bytes."""
    return _ADAPTER.dump_json(manifest, indent=2) + b"\n"


def parse_manifest(data: bytes, file: Path) -> Manifest:
    """Read a manifest strictly.

    Args:
        data: content of ``manifest.json``.
        file: where it came from, for the message.

    Raises:
        ManifestError: not JSON, cut short, of another schema version, or a field missing, unknown or wrong.
    """
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        raise _named(error, file) from None


def _named(error: ValidationError, file: Path) -> ManifestError:
    """The first complaint of pydantic as an error that names field and remedy."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    problem = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return ManifestError(
            file, "", f"not readable as JSON ({problem})", "Copy the bundle again from its source."
        )
    if field == "schema_version":
        remedy = (
            f"This program reads version {SCHEMA_VERSION}: use a bundle exported for it, or another program."
        )
    else:
        remedy = (
            "Export the bundle again, or correct the manifest and seal it again; do not edit a sealed one."
        )
    return ManifestError(file, field, problem, remedy)
