"""Errors of the models package: ``ModelError`` is the root, one subclass per thing a caller decides on."""

from __future__ import annotations


class ModelError(Exception):
    """Root of every error that this package raises on purpose."""


class NoFieldOfViewError(ModelError):
    """The picture holds no round, lit field of view: it is no fundus photograph that could be graded."""

    reason_code = "NOT_A_FUNDUS_PHOTOGRAPH"
    retryable = False
