"""`[[destination]]`: where reports go, and in which form."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from worker.settings_sections import AeTitle, Seconds, Section

SrClass = Literal["comprehensive-3d", "comprehensive", "enhanced", "basic-text"]


class Destination(Section):
    """A DICOM node that gets reports: all of them, unless `[[caller]]` says otherwise."""

    name: str = Field(
        min_length=1, examples=["pacs"], description="Name in tables, logs and commands; unique."
    )
    ae_title: AeTitle = Field(examples=["PACS"], description="Its AE title.")
    host: str = Field(min_length=1, examples=["127.0.0.1"], description="Its address.")
    port: int = Field(ge=1, le=65535, examples=[11113], description="Its TCP port.")
    required: bool = Field(
        default=True,
        description="A study counts as delivered when all required ones have its report and all beside it.",
    )
    tls: bool = Field(default=False, description="Whether to speak TLS with it; needs [tls] ca_file.")
    tls_check_name: bool = Field(
        default=True, description="Whether its certificate has to be for `host`, as well as from the CA."
    )
    timeout_s: Seconds | None = Field(
        default=None, examples=[30], description="Seconds to wait for it; default [delivery] timeout_s."
    )
    sr_classes: tuple[SrClass, ...] = Field(
        default=("comprehensive-3d", "comprehensive", "enhanced", "basic-text"),
        min_length=1,
        description="Forms of the report, best first: the first that the destination accepts is sent.",
    )
    pdf: bool = Field(
        default=False, description="Whether it also gets each report as a page to read (Encapsulated PDF)."
    )
    overlay: bool = Field(
        default=False,
        description="Whether it also gets, for each graded photograph, a picture of where lesions were seen.",
    )

    @field_validator("sr_classes")
    @classmethod
    def _refuse_repeats(cls, value: tuple[SrClass, ...]) -> tuple[SrClass, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a form twice; name each once, the best first")
        return value

    @property
    def document_kinds(self) -> tuple[str, ...]:
        """What it gets beside reports, as the rows name it."""
        return (*(["PDF"] if self.pdf else []), *(["OVERLAY"] if self.overlay else []))
