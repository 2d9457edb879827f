"""`[[caller]]`: what holds for single senders, and what may be wrong with it."""

from __future__ import annotations

import difflib
import ipaddress
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from worker.settings_sections import AeTitle, Count, Section


def check_network(value: str) -> str:
    """An address or a network in CIDR notation (RFC 4632)."""
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        reason = str(error).removeprefix(f"{value!r} ").removeprefix(f"{value} ")
        raise ValueError(
            f"{value!r} is no address or network ({reason}); write 10.1.2.3 or 10.1.0.0/16"
        ) from None
    return value


Host = Annotated[str, AfterValidator(check_network)]


class CallerSettings(Section):
    """A sender, by its calling AE title: where it may call from, and what is done with what it sends."""

    ae_title: AeTitle = Field(
        examples=["CAMERA1"],
        description="Its calling AE title; each at most once. It need not be in allowed_callers.",
    )
    hosts: tuple[Host, ...] = Field(
        default=(),
        description="Addresses and networks (10.1.2.3, 10.1.0.0/16) it may call from; none: from anywhere.",
    )
    allowed: bool = Field(
        default=True,
        description="false: its associations are rejected, also where allowed_callers lets it in.",
    )
    priority: Literal["high", "medium", "low"] = Field(
        default="medium",
        description="Of its images, where neither (0040,1003) nor the C-STORE request says one but medium.",
    )
    destinations: tuple[str, ...] = Field(
        default=(),
        description="Names of the destinations that get reports of its studies; none: all of them.",
    )
    camera_opt_in: tuple[str, ...] = Field(
        default=(),
        description="Camera keys that may be reported when it sends them, beside those of [camera] opt_in.",
    )
    maximum_associations: Count | None = Field(
        default=None, examples=[8], description="In place of [listener] maximum_per_caller."
    )
    requests_per_minute: Count | None = Field(
        default=None, examples=[600], description="In place of [listener] requests_per_minute."
    )
    maximum_object_mb: Count | None = Field(
        default=None, examples=[200], description="In place of [listener] maximum_object_mb."
    )


def caller_problems(
    callers: Sequence[CallerSettings], allowed_callers: Collection[str], destinations: Sequence[str]
) -> Iterator[str]:
    """What is wrong with the tables although each value is right on its own."""
    for name, count in Counter(each.ae_title for each in callers).items():
        if count > 1:
            yield f"[[caller]] ae_title {name!r} is there more than once; put its hosts into one table"
    for each in callers:
        where = f"[[caller]] {each.ae_title!r}"
        if not each.allowed and each.ae_title in allowed_callers:
            yield f"{where} has allowed = false and is in [listener] allowed_callers; keep one or the other"
        for name in each.destinations:
            if name not in destinations:
                near = _nearest(name, destinations)
                yield f"{where} destinations: there is no [[destination]] {name!r}{near}"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}"
