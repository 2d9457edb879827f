"""One decoder process, seen from the service: started, given frames, ended. Its answers are not trusted."""

from __future__ import annotations

import array
import fcntl
import json
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from dicom_io.codecs import RgbFrame
from dicom_io.decoder_main import OUT_OF_MEMORY, READY, REQUEST
from dicom_io.errors import RefusedPixelsError
from dicom_io.frame_layout import MAXIMUM_PIXELS, FrameLayout

log = structlog.get_logger(__name__)

_ANSWER_BYTES = 16_384
_START_S = 60.0
_END_S = 2.0
_COMPLAINT_BYTES = 2000
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class DecoderDiedError(Exception):
    """The process ended, or was ended, without an answer.

    Args:
        detail: What happened, the end of a sentence about the decoder.
        lost: Whether somebody else killed it, so that the stream need not be to blame.
        again: Whether a process without a past may succeed.
    """

    def __init__(self, detail: str, *, lost: bool = False, again: bool = True) -> None:
        super().__init__(detail)
        self.lost = lost
        self.again = again


class DecoderProcess:
    """A process that decodes. One thread at a time may use it; any may `kill` it.

    Args:
        program: Python that it runs.
        memory_mb: Megabytes of address space beyond what it has at its start.

    Raises:
        OSError: It cannot be started now; the log says why.

    Attributes:
        answered: Frames that it has given an answer to.
    """

    def __init__(self, program: str, memory_mb: int) -> None:
        self.answered = 0
        self._memory_mb = memory_mb
        self._killed = False
        self._channel, theirs = socket.socketpair()
        complaints = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            self._process = _started(program, theirs.fileno(), memory_mb, complaints)
            theirs.close()
            self._await_ready(complaints)
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
            os.close(complaints)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def decode(self, stream: bytes, layout: FrameLayout, timeout_s: float) -> RgbFrame:
        """Decode one frame.

        Raises:
            RefusedPixelsError: The decoder's own refusal.
            DecoderDiedError: There is no answer; the process is of no use any more.
        """
        deadline = time.monotonic() + timeout_s
        described = pickle.dumps(layout)
        head = REQUEST.pack(len(described), len(stream)) + described
        try:
            for part in (head, stream):
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                self._channel.sendall(part)
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            answer, shared = _received(self._channel)
        except TimeoutError:
            self.kill()
            raise DecoderDiedError(f"had not ended after {timeout_s:g} s", again=False) from None
        except OSError:
            raise self._death() from None
        try:
            return self._understood(answer, shared)
        finally:
            if shared is not None:
                os.close(shared)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._killed = True
        self._process.kill()

    def end(self, *, at_once: bool) -> None:
        """End the process and let go of it; one that is idle goes by itself when its channel closes."""
        if at_once:
            self.kill()
        self._channel.close()
        try:
            self._process.wait(None if at_once else _END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _understood(self, answer: bytes, shared: int | None) -> RgbFrame:
        """The frame that an answer stands for, or the refusal."""
        if not answer:
            raise self._death()
        try:
            said: dict[str, Any] = json.loads(answer)
            if shared is not None:
                frame = _mapped(shared, int(said["rows"]), int(said["columns"]))
                self.answered += 1
                return frame
            reason, detail = str(said["reason"]), str(said["detail"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DecoderDiedError(f"gave no valid answer ({type(error).__name__})") from None
        self.answered += 1
        raise RefusedPixelsError(reason, detail)

    def _death(self) -> DecoderDiedError:
        """How the process ended, which it has or is about to."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return DecoderDiedError("closed its channel")
        if status == OUT_OF_MEMORY:
            return DecoderDiedError(f"needed more than {self._memory_mb} MB of memory")
        if status >= 0:
            return DecoderDiedError(f"ended with status {status}")
        lost = status == -signal.SIGKILL and not self._killed
        return DecoderDiedError(f"crashed ({signal.Signals(-status).name})", lost=lost, again=not lost)

    def _await_ready(self, complaints: int) -> None:
        """Wait for the process's first word."""
        self._channel.settimeout(_START_S)
        try:
            if self._channel.recv(len(READY), socket.MSG_WAITALL) == READY:
                return
        except OSError as error:
            log.warning("decoder_silent", error=type(error).__name__)
        self.end(at_once=True)
        begin = max(0, os.fstat(complaints).st_size - _COMPLAINT_BYTES)
        said = os.pread(complaints, _COMPLAINT_BYTES, begin).decode(errors="replace").strip()
        log.error("decoder_not_started", status=self._process.returncode, said=said)
        raise OSError("a decoder process could not be started; see decoder_not_started in the log")


def _started(program: str, channel: int, memory_mb: int, complaints: int) -> subprocess.Popen[bytes]:
    """Start Python on `program`, in a session of its own: a terminal's signals are not for it."""
    packages = str(Path(__file__).absolute().parent.parent)
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 -- this interpreter, and a program that is no input
        [sys.executable, "-P", "-c", program, str(channel), str(memory_mb)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
        pass_fds=(channel,),
        env=environment,
        start_new_session=True,
    )


def _received(channel: socket.socket) -> tuple[bytes, int | None]:
    """One answer, and the descriptor that came with it."""
    answer, ancillary, _, _ = channel.recvmsg(_ANSWER_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(content) >= 4:
            return answer, array.array("i", content[:4])[0]
    return answer, None


def _mapped(shared: int, rows: int, columns: int) -> RgbFrame:
    """The file `shared` as a frame; sealed first, so that nobody can take its memory away again.

    Raises:
        ValueError, OSError: It is no such file.
    """
    size = rows * columns * 3
    if rows < 1 or columns < 1 or size > 3 * MAXIMUM_PIXELS:
        raise ValueError("a frame of an impossible size")
    fcntl.fcntl(shared, fcntl.F_ADD_SEALS, _SEALS)
    if os.fstat(shared).st_size != size:
        raise ValueError("a frame of another size than was said")
    content = mmap.mmap(shared, size, access=mmap.ACCESS_COPY)
    return np.frombuffer(content, np.uint8).reshape(rows, columns, 3)
