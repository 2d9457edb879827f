"""What a destination takes, asked of it as a delivery would: for `check`."""

from __future__ import annotations

from pydicom.uid import UID, EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from dicom_io.sender import Echo, Peer, accepted_classes
from worker.report_forms import forms_of
from worker.settings import Destination


def what_it_takes(peer: Peer, destination: Destination) -> Echo:
    """Return whether the destination takes all that it is configured to get, in a sentence."""
    forms = forms_of(destination)
    beside = {
        "pdf": EncapsulatedPDFStorage if destination.pdf else None,
        "overlay": SecondaryCaptureImageStorage if destination.overlay else None,
    }
    wanted = {key: str(sop_class) for key, sop_class in beside.items() if sop_class is not None}
    taken = accepted_classes(peer, (*forms, *wanted.values()))
    if isinstance(taken, Echo):
        return taken
    form = next((each for each in forms if each in taken), None)
    missing = [f"{key} = true and no {UID(each).name}" for key, each in wanted.items() if each not in taken]
    if form is None:
        missing.insert(0, f"none of sr_classes ({', '.join(destination.sr_classes)})")
    if missing:
        return Echo(False, f"CONTEXT_NOT_ACCEPTED: it takes {'; '.join(missing)}.")
    more = f" and {' and '.join(UID(each).name for each in wanted.values())}" if wanted else ""
    return Echo(True, f"The peer answered the echo; it gets reports as {UID(str(form)).name}{more}.")
