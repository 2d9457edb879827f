"""DICOM over TLS, both ways: our sender, pynetdicom and DCMTK against our listener; our sender to DCMTK."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from factories.certificates import Authority, authority
from factories.dicom import JPEGBaseline8Bit, write_fundus
from factories.listening import Recorder, listening, wait_until
from factories.servers import free_port, require_binary

from dicom_io.sender import Echo, Parcel, Peer, echo, send
from dicom_io.tls import Clients, TlsFiles, TlsFilesError, client_context, expires_at, server_context


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def own(ca: Authority) -> TlsFiles:
    return ca.issue("worker")


@pytest.fixture(scope="module")
def camera(ca: Authority) -> TlsFiles:
    return ca.issue("camera")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate of another authority."""
    return authority(tmp_path_factory.mktemp("other")).issue("stranger")


def peer(port: int, tls: TlsFiles | None, *, check_name: bool = True) -> Peer:
    return Peer("FUNDUS", "127.0.0.1", port, "CAMERA", 20, tls, check_name)


def dcmtk(
    program: str, port: int, files: TlsFiles, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    assert files.key is not None
    assert files.certificate is not None
    assert files.ca is not None
    options: list[str | Path] = [
        "-v",
        "+tls",
        files.key,
        files.certificate,
        "+cf",
        files.ca,
        "-aet",
        "CAMERA",
        "-aec",
        "FUNDUS",
    ]
    command = [require_binary(program), *options, "127.0.0.1", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def only_reason(recorder: Recorder) -> str:
    wait_until(lambda: recorder.rejections)
    (rejection,) = recorder.rejections
    return rejection.reason_code


def photograph(folder: Path) -> Parcel:
    path = folder / "sent.dcm"
    ds = write_fundus(path, transfer_syntax=JPEGBaseline8Bit)
    return Parcel(1, path, str(ds.SOPClassUID), str(ds.SOPInstanceUID))


def test_an_object_comes_in_from_our_own_sender(tmp_path: Path, own: TlsFiles, camera: TlsFiles) -> None:
    with listening(tmp_path, tls=server_context(own, "required")) as (listener, recorder):
        (outcome,) = send(peer(listener.port, camera), [photograph(tmp_path)])
        wait_until(lambda: recorder.closed)

    assert outcome.accepted, outcome
    assert len(recorder.stored) == 1
    assert recorder.rejections == []


@pytest.mark.dcmtk
def test_dcmtk_sends_over_tls(tmp_path: Path, own: TlsFiles, camera: TlsFiles) -> None:
    sent = photograph(tmp_path)
    with listening(tmp_path, tls=server_context(own, "required")) as (listener, recorder):
        echoed = dcmtk("echoscu", listener.port, camera)
        stored = dcmtk("storescu", listener.port, camera, "-xy", sent.path)
        wait_until(lambda: len(recorder.closed) == 2)

    assert echoed.returncode == 0, echoed.stderr
    assert stored.returncode == 0, stored.stderr
    assert [each.sop_instance_uid for each in recorder.received] == [sent.sop_instance_uid]


@pytest.mark.dcmtk
def test_dcmtk_with_a_certificate_of_another_authority_is_kept_out(
    tmp_path: Path, own: TlsFiles, stranger: TlsFiles
) -> None:
    with listening(tmp_path, tls=server_context(own, "required")) as (listener, recorder):
        refused = dcmtk("echoscu", listener.port, replace(stranger, ca=own.ca))
        assert only_reason(recorder) == "TLS_FAILED"

    assert refused.returncode != 0


@pytest.mark.parametrize(
    ("policy", "gets_in"),
    [
        (("server", False), True),
        (("optional", False), True),
        (("optional", True), True),
        (("required", False), False),
    ],
)
def test_callers_certificates(
    tmp_path: Path, own: TlsFiles, camera: TlsFiles, policy: tuple[Clients, bool], gets_in: bool
) -> None:
    clients, shows = policy
    files = camera if shows else TlsFiles(ca=own.ca)
    with listening(tmp_path, tls=server_context(own, clients)) as (listener, recorder):
        answer = echo(peer(listener.port, files))
        assert answer.ok is gets_in, answer
        if not gets_in:  # TLS 1.3: the caller learns of it only after its side of the handshake
            assert only_reason(recorder) == "TLS_FAILED"


def test_a_plain_caller_is_kept_out(tmp_path: Path, own: TlsFiles) -> None:
    with listening(tmp_path, tls=server_context(own, "server")) as (listener, recorder):
        answer = echo(peer(listener.port, None))
        assert only_reason(recorder) == "TLS_FAILED"

    assert not answer.ok


def test_tls_before_1_2_is_refused(tmp_path: Path, own: TlsFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with listening(tmp_path, tls=server_context(own, "server")) as (listener, recorder):
        with (
            socket.create_connection(("127.0.0.1", listener.port), timeout=20) as connection,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(connection).close()
        assert only_reason(recorder) == "TLS_FAILED"


def test_a_caller_that_never_shakes_hands_keeps_nobody_waiting(
    tmp_path: Path, own: TlsFiles, camera: TlsFiles
) -> None:
    with (
        listening(tmp_path, tls=server_context(own, "server"), acse_timeout_s=3) as (listener, recorder),
        socket.create_connection(("127.0.0.1", listener.port), timeout=20) as mute,
    ):
        mute.sendall(b"\x16\x03")  # as a handshake begins
        started = time.monotonic()
        assert echo(peer(listener.port, camera)).ok
        assert not recorder.rejections or time.monotonic() - started >= 3
        assert only_reason(recorder) == "TLS_FAILED"


def test_our_sender_refuses_a_certificate_of_another_authority(
    tmp_path: Path, own: TlsFiles, stranger: TlsFiles
) -> None:
    with listening(tmp_path, tls=server_context(stranger, "server")) as (listener, _):
        (outcome,) = send(peer(listener.port, TlsFiles(ca=own.ca)), [photograph(tmp_path)])

    assert (outcome.accepted, outcome.retryable, outcome.reason_code) == (False, True, "PEER_TLS_FAILED")
    assert "certificate not accepted" in outcome.detail


def test_our_sender_looks_at_the_name_unless_told_not_to(tmp_path: Path, ca: Authority) -> None:
    elsewhere = ca.issue("elsewhere", address="10.1.2.3")
    with listening(tmp_path, tls=server_context(elsewhere, "server")) as (listener, _):
        strict = echo(peer(listener.port, TlsFiles(ca=ca.certificate)))
        lax = echo(peer(listener.port, TlsFiles(ca=ca.certificate), check_name=False))

    assert (strict.ok, lax.ok) == (False, True)
    assert "PEER_TLS_FAILED" in strict.detail


@pytest.mark.dcmtk
def test_our_sender_delivers_to_dcmtk_over_tls(tmp_path: Path, own: TlsFiles, camera: TlsFiles) -> None:
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    files = [str(camera.key), str(camera.certificate), "+cf", str(camera.ca)]
    command = [str(require_binary("storescp")), "+tls", *files, "-od", str(folder), "+xa", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answered(peer(port, own)).ok)
            (outcome,) = send(peer(port, own), [photograph(tmp_path)])
        finally:
            process.kill()

    assert outcome.accepted, outcome
    assert len(list(folder.iterdir())) == 1


def answered(to: Peer) -> Echo:
    time.sleep(0.1)
    return echo(to)


def test_the_date_of_a_certificate(ca: Authority) -> None:
    files = ca.issue("soon", days=20)
    assert files.certificate is not None
    assert files.ca is not None
    now = datetime.now(UTC)

    assert abs(expires_at(files.certificate) - now - timedelta(days=20)) < timedelta(hours=1)
    both = ca.folder / "both.pem"
    both.write_bytes(files.ca.read_bytes() + files.certificate.read_bytes())
    assert expires_at(both) == expires_at(files.certificate)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_a_certificate_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.pem"
    path.write_text(text)

    with pytest.raises(TlsFilesError, match=r"no certificate|damaged"):
        expires_at(path)
    with pytest.raises(TlsFilesError, match=r"no certificate|damaged"):
        client_context(TlsFiles(ca=path))


def test_files_that_do_not_belong_together_are_named(own: TlsFiles, camera: TlsFiles, tmp_path: Path) -> None:
    with pytest.raises(TlsFilesError, match="are not a certificate and its key"):
        server_context(replace(own, key=camera.key), "server")
    with pytest.raises(TlsFilesError, match="cannot be read"):
        server_context(replace(own, key=tmp_path / "none.key"), "server")
    with pytest.raises(TlsFilesError, match="ca_file"):
        server_context(replace(own, ca=None), "required")
    with pytest.raises(TlsFilesError, match="certificate_file"):
        server_context(TlsFiles(), "server")
