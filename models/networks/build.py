"""The generator that a configuration means: the one place that training, resuming and export ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from models.networks.generator import ResidualGenerator
from models.networks.plain import PlainGenerator

Generator = ResidualGenerator | PlainGenerator
"""G12 or G21."""


class GeneratorSettings(Protocol):
    """What of a configuration decides on the generators.

    Attributes:
        residual: x̂ = x + r(x), or a plain x̂ = G(x).
        form: Of the residual.
        scale: Of the picture from which the residual's coefficients are predicted.
    """

    @property
    def residual(self) -> bool: ...  # noqa: D102 - described above
    @property
    def form(self) -> str: ...  # noqa: D102 - described above
    @property
    def scale(self) -> int: ...  # noqa: D102 - described above


def build_generator(settings: GeneratorSettings | Mapping[str, Any]) -> Generator:
    """A new generator, residual or plain.

    Args:
        settings: An adapter's configuration, or the same as read from a run's ``config.json``.

    Raises:
        ValueError: A setting is missing, or is none of those that there are.
    """
    names = ("residual", "form", "scale")
    if isinstance(settings, Mapping):
        missing = [name for name in names if name not in settings]
        if missing:
            raise ValueError(f"the adapter's settings lack {', '.join(missing)}")
        residual, form, scale = (settings[name] for name in names)
    else:
        residual, form, scale = settings.residual, settings.form, settings.scale
    return ResidualGenerator(form, scale) if residual else PlainGenerator()
