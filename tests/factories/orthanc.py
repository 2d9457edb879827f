"""Orthanc as a receiving PACS, asked over its REST interface."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factories.servers import START_TIMEOUT_S, ServerStartError, free_port, require_binary


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        ae_title: Its AE title; it checks that it is called by it.
        port: Its DICOM port on 127.0.0.1.
        http_port: Its REST port on 127.0.0.1.
    """

    ae_title: str
    port: int
    http_port: int

    def get(self, path: str) -> Any:
        """Answer of the REST interface to GET, parsed from JSON."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """Answer of the REST interface to GET."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            content: bytes = answer.read()
            return content

    def instances(self) -> list[str]:
        """Orthanc's ids of the objects it stores."""
        found: list[str] = self.get("/instances")
        return found


@contextmanager
def orthanc_process(folder: Path, *, ae_title: str = "ORTHANC") -> Iterator[Orthanc]:
    """Run Orthanc, with its storage in `folder`, until the block ends."""
    server = Orthanc(ae_title, free_port(), free_port())
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "DicomAet": ae_title,
        "DicomCheckCalledAet": True,
        "DicomPort": server.port,
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "ConcurrentJobs": 1,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as output:
        process = subprocess.Popen(
            [require_binary("Orthanc"), folder / "orthanc.json"], stdout=output, stderr=output, cwd=folder
        )
    try:
        _wait_until_it_answers(process, server, folder / "orthanc.log")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_it_answers(process: subprocess.Popen[bytes], server: Orthanc, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.get("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise ServerStartError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
