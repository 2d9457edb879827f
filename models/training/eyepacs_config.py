"""How the EyePACS experiment is run, every value of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from models.training.adapter_config import AdapterConfig
from models.training.config import ConfigError
from models.training.end_to_end import GraderConfig

OURS, PLAIN = "ours", "plain CycleGAN"


@dataclass(frozen=True)
class EyepacsConfig:
    """How the experiment is run.

    Attributes:
        labelled_camera: Code of the camera that the classifier is trained on; empty for the one with the most
            graded photographs (code 1).
        size: Side S of the prepared photographs in pixels.
        seed: Seed of the division of patients; the trainings have their own.
        train_share: Share of the labelled camera's patients that train the classifier, and, without their
            grades, are the adapters' second style.
        validation_share: Share of them that stops the training and fixes threshold and calibration; the rest
            is measured.
        adapt_share: Share of each other camera's patients that adapts, without grades; the rest is measured.
        train_cap: Most photographs that train the classifier.
        validation_cap: Most photographs of the validation part.
        adapt_cap: Most photographs of either style that an adapter sees.
        test_cap: Most photographs measured of each camera.
        minimum_images: Fewest photographs of a camera that adapt, and that are measured; one with fewer is
            left out of the table, which says so.
        minimum_of_each: Fewest referable and fewest other photographs among those measured, likewise.
        plain_cyclegan: Whether a plain CycleGAN is trained for each camera too, for comparison.
        refuse_mixed_patients: Whether a patient photographed by two cameras is an error, not left out.
        grader: Classifier.
        adapter: Adapters; residual ones, trained without pairs.

    Raises:
        ConfigError: The shares leave nobody to be measured, the size does not fit the grader's levels, or
            the adapters are not what the table calls ours.
    """

    labelled_camera: str = ""
    size: int = 512
    seed: int = 0
    train_share: float = 0.7
    validation_share: float = 0.1
    adapt_share: float = 0.5
    train_cap: int = 20_000
    validation_cap: int = 3_000
    adapt_cap: int = 2_000
    test_cap: int = 5_000
    minimum_images: int = 30
    minimum_of_each: int = 10
    plain_cyclegan: bool = False
    refuse_mixed_patients: bool = False
    grader: GraderConfig = field(default_factory=GraderConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        unmeasured = self.train_share + self.validation_share
        if (
            min(self.train_share, self.validation_share) <= 0
            or unmeasured >= 1
            or not 0 < self.adapt_share < 1
        ):
            raise ConfigError(
                "train_share, validation_share and adapt_share must be above 0, the sum of the first two and "
                "the third below 1"
            )
        if not self.adapter.residual or self.adapter.paired:
            raise ConfigError(
                "the row 'ours' is a residual adapter trained without pairs: leave adapter.residual and "
                "adapter.paired as they are, and set plain_cyclegan for the comparison"
            )
        step = 8 * 2 ** len(self.grader.tail)
        if self.size < step or self.size % step:
            raise ConfigError(
                f"size {self.size} is no multiple of {step}, which the levels of grader.tail need"
            )

    def adaptations(self) -> dict[str, AdapterConfig]:
        """Name in the table to settings, for each adapter that a camera gets."""
        plain = replace(self.adapter, residual=False, form=AdapterConfig.form, scale=AdapterConfig.scale)
        return {OURS: self.adapter, **({PLAIN: plain} if self.plain_cyclegan else {})}
