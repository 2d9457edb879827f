"""Mutated association requests and messages: every connection is accounted for, the next one served."""

from __future__ import annotations

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from corpus.mutation import mutate
from corpus.photograph import make, written
from factories.listening import listening, wait_until
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_RELEASE

from dicom_io.sender import Parcel, Peer, send
from dicom_io.wrap import OPHTHALMIC_PHOTOGRAPHY_8_BIT

CONNECTIONS = 40
# pynetdicom's thread of a connection ends with an InvalidEventError when the peer talks on after an abort.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@cache
def association_request() -> bytes:
    """What a sender says first, as pynetdicom says it (A-ASSOCIATE-RQ, PS3.8 section 9.3.2)."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(1 << 16))

        thread = threading.Thread(target=listen)
        thread.start()
        ae = AE("CAMERA")
        ae.acse_timeout = 5
        context = build_context(OPHTHALMIC_PHOTOGRAPHY_8_BIT, JPEGBaseline8Bit)
        ae.associate("127.0.0.1", server.getsockname()[1], [context], ae_title="FUNDUS")
        thread.join(10)
    return heard[0]


@cache
def conversation() -> bytes:
    """A whole association: request, one C-STORE in P-DATA-TF PDUs, release."""
    ds = make("association")
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    content = written(ds)
    request.DataSet = BytesIO(content[144 + int.from_bytes(content[140:144], "little") :])
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    parts = [association_request()]
    for primitive in message.encode_msg(1, 4096):
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        parts.append(pdu.encode())
    release = A_RELEASE_RQ()
    release.from_primitive(A_RELEASE())
    return b"".join([*parts, release.encode()])


def say(port: int, stream: bytes) -> None:
    """Connect, ask, and when there is an answer send the rest; then wait until the other side hangs up."""
    first = len(association_request())
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, suppress(OSError):
        connection.sendall(stream[:first])
        if connection.recv(1 << 16):
            connection.sendall(stream[first:])
        while connection.recv(1 << 16):
            pass


def test_every_connection_is_accounted_for_and_the_next_caller_is_served(tmp_path: Path) -> None:
    rng = random.Random(20260301)  # noqa: S311 - nothing secret follows from it
    streams = [mutate(rng, rng.choice((association_request(), conversation()))) for _ in range(CONNECTIONS)]
    timeouts = {"acse_timeout_s": 3, "dimse_timeout_s": 3, "network_timeout_s": 3}

    with listening(tmp_path, **timeouts) as (listener, recorder):
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda stream: say(listener.port, stream), (conversation(), *streams)))

        def ended() -> int:
            outside = [each for each in recorder.rejections if each.kind in ("CONNECTION", "ASSOCIATION")]
            callers = {each.caller.association_id for each in outside}
            return len(callers | {caller.association_id for caller, _ in recorder.closed})

        wait_until(lambda: ended() == CONNECTIONS + 1 and listener.open_associations == 0)
        stored = len(recorder.stored)
        path = tmp_path / "next.dcm"
        path.write_bytes(written(make("next")))
        uid = make("next").SOPInstanceUID
        peer = Peer("FUNDUS", "127.0.0.1", listener.port, "CAMERA")
        (answer,) = send(peer, [Parcel(1, path, OPHTHALMIC_PHOTOGRAPHY_8_BIT, uid)])

    assert stored >= 1, "the conversation itself is sound"
    assert answer.accepted, answer.detail
    assert list(recorder.spool.incoming.iterdir()) == []
