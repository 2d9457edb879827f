"""The performance itself: start the worker, send the studies, wait until every report is at the PACS."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from dicom_io.sender import Peer, echo
from worker.demo.configuration import AE_TITLE, CAMERA_AE
from worker.demo.errors import DemoError
from worker.demo.processes import worker_command
from worker.demo.results import Result, count_ended, read_results
from worker.demo.sending import ASSOCIATIONS, send_studies
from worker.demo.stage import Stage
from worker.demo.studies import DemoStudy, make_studies

START_TIMEOUT_S = 60.0
WORK_TIMEOUT_S = 180.0
_READY = "service_started"


@dataclass(frozen=True)
class Performance:
    """What was sent and what came of it.

    Attributes:
        studies: What was sent.
        results: What the database says.
        seconds: From the first association to the last report.
    """

    studies: tuple[DemoStudy, ...]
    results: tuple[Result, ...]
    seconds: float


def perform(stage: Stage, engine: Engine) -> Performance:
    """Run the main job once.

    Args:
        stage: What was set up.
        engine: The worker's database.

    Raises:
        DemoError: A process ended, did not answer, refused a photograph, or was not done in time.
    """
    columns = TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=stage.console) as progress:
        studies = _start(stage, progress)
        peer = _open_door(stage)
        images = sum(len(study.photographs) for study in studies)
        sending = progress.add_task(f"sent, {ASSOCIATIONS} studies at a time", total=images)
        analysed = progress.add_task("analysed", total=images)
        reported = progress.add_task("reports at the PACS", total=len(studies))
        started = time.monotonic()
        send_studies(peer, studies, lambda: progress.advance(sending))

        def done() -> bool:
            ended, received = count_ended(engine), stage.pacs.received
            progress.update(analysed, completed=ended)
            progress.update(reported, completed=received)
            return ended >= images and received >= len(studies)

        stage.programs.wait_until(done, "analysing and reporting", WORK_TIMEOUT_S)
        seconds = time.monotonic() - started
    return Performance(tuple(studies), tuple(read_results(engine)), seconds)


def _start(stage: Stage, progress: Progress) -> list[DemoStudy]:
    """Start the worker's processes; make the photographs meanwhile."""
    starting = progress.add_task(f"starting {', '.join(stage.roles)}", total=len(stage.roles))
    configuration = stage.folder.configuration
    programs = [stage.programs.start(role, worker_command(role, configuration)) for role in stage.roles]
    studies = make_studies(stage.bundle.manifest, stage.folder.photographs)

    def ready() -> bool:
        count = sum(program.has_logged(_READY) for program in programs)
        progress.update(starting, completed=count)
        return count == len(programs)

    stage.programs.wait_until(ready, "starting the worker", START_TIMEOUT_S)
    return studies


def _open_door(stage: Stage) -> Peer:
    door = stage.settings.listener
    peer = Peer(AE_TITLE, door.host, door.port, CAMERA_AE)
    answer = echo(peer)
    if not answer.ok:
        raise DemoError(f"the worker does not answer a C-ECHO: {answer.detail}")
    return peer
