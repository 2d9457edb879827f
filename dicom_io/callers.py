"""Who may call: AE titles, the addresses they may call from, and limits of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dicom_io.limits import Limits
from dicom_io.refusals import CALLER_ADDRESS, CALLING_AE, Refusal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class CallerRule:
    """What is granted to one calling AE title.

    Attributes:
        ae_title: Without outer spaces.
        allowed: Whether it may send at all.
        networks: Where it may call from; empty: from anywhere.
        limits: Associations, requests and size of an object that it is granted; None: those of the listener.
            Everything else in here stays the listener's.
    """

    ae_title: str
    allowed: bool = True
    networks: tuple[Network, ...] = ()
    limits: Limits | None = None


class Callers:
    """Decides by calling AE title and host.

    Args:
        allowed: AE titles that may call from anywhere, beside those that have a rule; ("*",): all others.
        rules: At most one for an AE title; a rule says all there is to say about its AE title.
    """

    def __init__(self, allowed: Collection[str], rules: Sequence[CallerRule] = ()) -> None:
        self._everybody = "*" in allowed
        self._allowed = {name.strip() for name in allowed}
        self._rules = {rule.ae_title: rule for rule in rules}

    def refusal(self, ae_title: str, host: str) -> Refusal | None:
        """Why this caller is rejected for good; None when it may call."""
        rule = self._rules.get(ae_title)
        if rule is None:
            return None if self._everybody or ae_title in self._allowed else CALLING_AE
        if not rule.allowed:
            return CALLING_AE
        return None if not rule.networks or is_within(host, rule.networks) else CALLER_ADDRESS

    def limits(self, ae_title: str) -> Limits | None:
        """The caller's own limits; None: those of the listener."""
        rule = self._rules.get(ae_title)
        return None if rule is None else rule.limits


def is_within(host: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks; IPv4 may come as IPv6 (RFC 4291 section 2.5.5.2)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
