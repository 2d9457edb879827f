"""UIDs that this product makes: derived, so that the same work always gets the same name."""

from __future__ import annotations

from uuid import UUID, uuid5

PRODUCT_NAMESPACE = UUID("f49860ec-6d27-4df0-8b3f-a1992ffb916a")
"""Namespace of every fixed UID below; an installation has one of its own for what it writes."""


def derived_uid(namespace: UUID, *parts: str) -> str:
    """Return `2.25.` + the decimal value of a name-based UUID (PS3.5 annex B.2).

    Args:
        namespace: The installation's namespace, or `PRODUCT_NAMESPACE`.
        *parts: What the UID stands for; ("a", "bc") and ("ab", "c") give different UIDs.

    Returns:
        At most 44 characters; equal arguments give equal UIDs, on every machine.
    """
    name = "\x1f".join(parts)
    return f"2.25.{uuid5(namespace, name).int}"


IMPLEMENTATION_CLASS_UID = derived_uid(PRODUCT_NAMESPACE, "implementation")
"""(0002,0012) of every file and association of this product (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME = "FUNDUS_WORKER"
"""(0002,0013), at most 16 characters. Without a number: a version must not change a stored report's bytes."""
