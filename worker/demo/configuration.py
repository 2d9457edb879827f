"""The worker's configuration for the demonstration: written to a file, as a user would."""

from __future__ import annotations

import json
from collections.abc import Mapping

from worker.demo.folder import DemoFolder
from worker.identity import Identity

AE_TITLE = "FUNDUS"
"""AE title of the worker."""
CAMERA_AE = "DEMOCAMERA"
"""AE title of the sender."""
PACS_AE = "DEMOPACS"
"""AE title of the receiving PACS."""
KEPT_VARIABLES = frozenset({"FUNDUS_BUNDLE", "FUNDUS_ENGINE", "FUNDUS_ENGINE_THREADS"})
"""Settings that may come from the user's environment; others could lead the demonstration to real data."""

_TEMPLATE = """\
# Written by `fundus-worker demo`; a good start for a configuration of your own.
data_dir = "data"
{sharing}
[listener]
ae_title = {ae_title}
host = "127.0.0.1"
port = {listener_port}
allowed_callers = [{camera_ae}]

[study]
close_on = "association"      # a study is complete when its sender hangs up

[spool]
reserve_mb = 64

[[destination]]
name = "demo-pacs"
ae_title = {pacs_ae}
host = "127.0.0.1"
port = {pacs_port}
"""


def write_configuration(
    folder: DemoFolder, *, listener_port: int, pacs_port: int, broker_url: str = ""
) -> None:
    """Write `fundus.toml`, and the key file that processes have to share when there is a broker."""
    sharing = ""
    if broker_url:
        Identity.from_file(folder.identity_key, create=True)
        sharing = f'broker_url = {json.dumps(broker_url)}\nidentity_key_file = "{folder.identity_key.name}"\n'
    text = _TEMPLATE.format(
        sharing=sharing,
        ae_title=json.dumps(AE_TITLE),
        camera_ae=json.dumps(CAMERA_AE),
        pacs_ae=json.dumps(PACS_AE),
        listener_port=listener_port,
        pacs_port=pacs_port,
    )
    folder.configuration.write_text(text, encoding="utf-8")


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the worker's processes: the user's, without settings that the file gives."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("FUNDUS_") or name in KEPT_VARIABLES
    }
