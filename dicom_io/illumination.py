"""What coded device, light, filter and channel descriptions say about colour and retina.

Codes in both forms that headers carry: SNOMED CT identifiers and the older SNOMED-RT ones (PS3.16 annex I).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_OTHER_DEVICES = frozenset(
    {
        *("397247004", "A-2B201"),  # slit lamp biomicroscope
        *("409899004", "R-1021C"),  # specular microscope
        *("397522002", "A-00FCA"),  # keratoscope
        *("102321001", "A-2B210"),  # operating microscope
        *("409902001", "R-1021F"),  # ophthalmic endoscope
        *("420827006", "A-00FF4"),  # pupillograph
    }
)
"""Members of CID 4202, Ophthalmic Photography Acquisition Device, that do not photograph the fundus."""

_SPECTRAL_FILTERS = frozenset(
    {
        *("445084008", "A-010DA"),  # blue
        *("422915004", "A-010D8"),  # blue-green
        *("445465004", "A-010E2"),  # green
        *("445279009", "A-010DF"),  # red
        *("445340000", "A-010E0"),  # yellow-green
    }
)
_INFRARED_FILTER = frozenset(("445169002", "A-010DC"))
"""Members of CID 4204, Ophthalmic Filter; an infrared filter before the sensor may be one that blocks it."""

_NO_COLOUR_LIGHT = frozenset(
    {
        *("414497003", "R-102BE"),  # infrared
        *("405739002", "G-A132"),  # red free
        *("415770004", "R-102BF"),  # ultraviolet
    }
)
"""Members of CID 4206, Ophthalmic Channel Description, that no colour photograph has."""

_COLOURS = frozenset(
    {
        *("371240000", "G-A11A"),  # red
        *("371246006", "G-A11E"),  # green
        *("405738005", "G-A12F"),  # blue
    }
)
_OTHER_KINDS = frozenset(("REDFREE", "RED", "BLUE", "GREEN", "IR", "FA", "FAF", "AF", "ICG", "ICGA"))
"""Words of Image Type after its second value (PS3.3 C.8.17.2.1.4, and what vendors add)."""


def not_retinal(device_types: Sequence[str]) -> bool:
    """Whether devices are named, and all of them look at other parts of the eye."""
    return bool(device_types) and _OTHER_DEVICES.issuperset(device_types)


def not_colour(
    *,
    light: Iterable[str],
    image_filters: Iterable[str],
    channels: Sequence[str],
    image_type: Sequence[str],
) -> bool:
    """Whether any description excludes a colour photograph.

    Args:
        light: Codes of illumination and of filters in the light path.
        image_filters: Codes of filters in the image path.
        channels: Codes of the light of each channel, in order.
        image_type: Values of Image Type (0008,0008).
    """
    one_colour = len(set(channels)) == 1 and _COLOURS.issuperset(channels)
    kinds = {"".join(filter(str.isalpha, value.upper())) for value in image_type[2:]}
    return (
        one_colour
        or not _NO_COLOUR_LIGHT.isdisjoint((*light, *channels))
        or not (_SPECTRAL_FILTERS | _INFRARED_FILTER).isdisjoint(light)
        or not _SPECTRAL_FILTERS.isdisjoint(image_filters)
        or not _OTHER_KINDS.isdisjoint(kinds)
    )
