"""DCMTK's storescp as a receiving PACS."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factories.servers import START_TIMEOUT_S, ServerStartError, free_port, require_binary

from dicom_io.sender import Peer, echo


@dataclass(frozen=True)
class StoreScp:
    """A running storescp.

    Attributes:
        ae_title: Its AE title; it answers to any.
        port: Where it listens on 127.0.0.1.
        folder: Where it puts what it receives, the data set as received.
    """

    ae_title: str
    port: int
    folder: Path

    def files(self) -> list[Path]:
        """What it has received."""
        return sorted(self.folder.iterdir())


@contextmanager
def storescp_process(
    folder: Path, *, options: Sequence[str] = (), ae_title: str = "PACS", port: int | None = None
) -> Iterator[StoreScp]:
    """Run storescp until the block ends.

    Args:
        folder: Made when it is not there.
        options: Further options, for instance `--refuse`.
        ae_title: Its AE title.
        port: A free one when None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port()
    command: list[str | Path] = [
        require_binary("storescp"),
        "--aetitle",
        ae_title,
        "--output-directory",
        folder,
    ]
    # Bit-preserving: what is on disk is what came over the wire.
    command += ["--bit-preserving", "--unique-filenames", *options, str(chosen)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    ) as process:
        try:
            _wait_until_it_listens(process, chosen)
            yield StoreScp(ae_title, chosen, folder)
        finally:
            process.kill()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        answer = echo(Peer("ANY", "127.0.0.1", port, "PROBE", timeout_s=5))
        if "PEER_UNREACHABLE" not in answer.detail:
            return
        time.sleep(0.05)
    raise ServerStartError(f"storescp did not start on port {port}")
