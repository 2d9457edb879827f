"""Every case of the corpus, in the order of the table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from corpus import cameras, charsets, colours, damage, frames, headers, identity, syntaxes
from corpus.case import Case

GROUPS: Mapping[str, tuple[Case, ...]] = MappingProxyType(
    {
        "Transfer syntaxes": syntaxes.CASES,
        "Colours and samples": colours.CASES,
        "Frames and fragments": frames.CASES,
        "Damage, sizes and other pictures": damage.CASES,
        "Headers": headers.CASES,
        "Character sets": charsets.CASES,
        "Identity": identity.CASES,
        "Cameras and kinds of image": cameras.CASES,
    }
)
CASES: tuple[Case, ...] = tuple(case for group in GROUPS.values() for case in group)
