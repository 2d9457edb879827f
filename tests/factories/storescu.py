"""DCMTK's storescu as the cameras: what it sent, what was acknowledged, and what it says went wrong."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from factories.photographs import SentStudy
from factories.servers import require_binary
from pydicom.uid import JPEGBaseline8Bit

CALLING_AE = "CAMERA"
ASSOCIATION_TIMEOUT_S = 240
_RETRY_S = 0.1
_PAUSE_S = 1.0
"""Long enough for the report of the first image to be on its way when the next one comes."""
_SENDING = re.compile(r"^I: Sending file: (.+)$")
_ANSWER = re.compile(r"^I: Received Store Response \((.+)\)$")


@dataclass(frozen=True)
class Sending:
    """One run of storescu: one association, or the attempt at one.

    Attributes:
        status: Its exit status; 0 when every file was stored.
        output: All that it said.
        answers: What the listener answered for each file that it answered; "Success" for 0x0000.
    """

    status: int
    output: str
    answers: dict[Path, str]

    @property
    def acknowledged(self) -> list[Path]:
        """Files answered with 0x0000."""
        return [path for path, answer in self.answers.items() if answer == "Success"]


def storescu(
    port: int,
    files: Sequence[Path],
    *,
    jpeg: bool = False,
    called_ae: str = "FUNDUS",
    calling_ae: str = CALLING_AE,
    options: Sequence[str] = ("-R",),
) -> Sending:
    """Send files over one association and wait for its end.

    Args:
        port: At 127.0.0.1.
        files: In this order.
        jpeg: Propose JPEG Baseline; storescu sends compressed pixels in no other case.
        called_ae: The listener's AE title.
        calling_ae: Our own.
        options: Further options; by default only contexts that the files need are proposed.
    """
    proposed = ["--propose-jpeg8"] if jpeg else []
    command: list[str | Path] = [
        require_binary("storescu"),
        "--verbose",
        "-aet",
        calling_ae,
        "-aec",
        called_ae,
    ]
    done = subprocess.run(
        [*command, *proposed, *options, "127.0.0.1", str(port), *files],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=ASSOCIATION_TIMEOUT_S,
        check=False,
    )
    return Sending(done.returncode, done.stdout, _answers(done.stdout))


def _answers(output: str) -> dict[Path, str]:
    answers: dict[Path, str] = {}
    current: Path | None = None
    for line in output.splitlines():
        if sending := _SENDING.match(line):
            current = Path(sending[1])
        elif (answer := _ANSWER.match(line)) and current is not None:
            answers[current] = answer[1]
    return answers


def send_study(port: int, study: SentStudy, files: Sequence[Path] = ()) -> Sending:
    """Send a study, or some files of it, over one association."""
    jpeg = study.transfer_syntax_uid == JPEGBaseline8Bit
    return storescu(port, files or study.files, jpeg=jpeg)


def send_in_parallel(port: int, studies: Sequence[SentStudy], associations: int = 4) -> list[Sending]:
    """Send studies over so many associations at a time, one a study; each once."""
    with ThreadPoolExecutor(associations) as pool:
        return list(pool.map(lambda study: send_study(port, study), studies))


@dataclass
class PersistentSenders:
    """Senders that keep what was not acknowledged and send it again until it is, as a PACS router does.

    Args:
        port: The listener's.
        associations: Senders that work side by side.
        split_every: Every so many studies, one comes image by image, each over an association of its own: its
            report is revised while it arrives. 0 for none.

    Attributes:
        acknowledged: SOP instance UIDs answered with 0x0000, in order.
        attempts: Associations tried.
    """

    port: int
    associations: int = 4
    split_every: int = 0
    acknowledged: list[str] = field(default_factory=list)
    attempts: int = 0
    _queue: list[SentStudy] = field(default_factory=list)
    _outstanding: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopping: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)

    def offer(self, studies: Sequence[SentStudy]) -> None:
        """Have these studies sent."""
        with self._changed:
            self._queue += studies
            self._outstanding += len(studies)
            self._changed.notify_all()

    @property
    def outstanding(self) -> int:
        """Studies that are not acknowledged completely."""
        with self._changed:
            return self._outstanding

    def __enter__(self) -> PersistentSenders:
        """Start the senders."""
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.associations)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the senders; what they were sending is let finish."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(ASSOCIATION_TIMEOUT_S)

    def _work(self) -> None:
        while (study := self._next()) is not None:
            self._send_until_acknowledged(study)
            with self._changed:
                self._outstanding -= 1

    def _next(self) -> SentStudy | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            return None if self._stopping else self._queue.pop(0)

    def _send_until_acknowledged(self, study: SentStudy) -> None:
        uids = {photograph.path: photograph.sop_instance_uid for photograph in study.photographs}
        split = bool(self.split_every) and study.number % self.split_every == 0
        while uids and not self._stopping:
            sending = send_study(self.port, study, list(uids)[: 1 if split else None])
            done = [uids.pop(path) for path in sending.acknowledged]
            with self._changed:
                self.acknowledged += done
                self.attempts += 1
            if uids:
                time.sleep(_PAUSE_S if split and done else _RETRY_S)


def echoscu(port: int, *, called_ae: str = "FUNDUS", calling_ae: str = CALLING_AE) -> bool:
    """Whether DCMTK gets an answer to its C-ECHO."""
    command: list[str | Path] = [
        require_binary("echoscu"),
        "-to",
        "60",
        "-aet",
        calling_ae,
        "-aec",
        called_ae,
    ]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port)], capture_output=True, timeout=ASSOCIATION_TIMEOUT_S, check=False
    )
    return done.returncode == 0
