"""Studies over C-STORE, each on an association of its own, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dicom_io.sender import Parcel, Peer, send
from worker.demo.errors import DemoError
from worker.demo.studies import DemoStudy

ASSOCIATIONS = 4
"""Associations open at once."""


def send_studies(peer: Peer, studies: Sequence[DemoStudy], accepted: Callable[[], object]) -> None:
    """Send every photograph.

    Args:
        peer: The worker's listener.
        studies: What to send.
        accepted: Called for each photograph that was acknowledged.

    Raises:
        DemoError: One was not.
    """

    def send_one(study: DemoStudy) -> None:
        parcels = [
            Parcel(number, each.path, each.sop_class_uid, each.sop_instance_uid)
            for number, each in enumerate(study.photographs)
        ]
        for outcome in send(peer, parcels):
            if not outcome.accepted:
                path = parcels[outcome.key].path
                raise DemoError(f"the worker did not take {path}: {outcome.reason_code}, {outcome.detail}")
            accepted()

    with ThreadPoolExecutor(ASSOCIATIONS) as pool:
        for done in [pool.submit(send_one, study) for study in studies]:
            done.result()
