"""What came of it, for people: table, reports, contact sheet, queries, and whether all is well."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_io.report_text import render_text
from models.predictor import Predictor
from worker.demo.checks import Reports, find_problems, read_reports
from worker.demo.contact_sheet import draw_contact_sheet, make_tiles, write_png
from worker.demo.performing import Performance
from worker.demo.results import Result
from worker.demo.stage import Stage
from worker.demo.table import QUERIES, footnote, query_command, results_table, shown


def show(stage: Stage, performance: Performance) -> bool:
    """Print and draw everything; return whether every check passed."""
    results, reports = performance.results, read_reports(stage.folder.pacs)
    _show_table(stage, performance, len(reports))
    _show_reports(stage, results, reports)
    with stage.console.status("drawing the contact sheet"):
        _draw(stage, performance)
    _show_places(stage)
    problems = find_problems(performance.studies, results, reports)
    stage.console.print()
    for problem in problems:
        stage.console.print(f"WRONG: {problem}", style="bold red", markup=False)
    if not problems:
        text = f"All {len(performance.studies)} reports arrived, and each says what v_eye_results says."
        stage.console.print(text, style="bold green")
    return not problems


def _references(performance: Performance) -> dict[str, int]:
    return {
        each.sop_instance_uid: each.reference_grade
        for study in performance.studies
        for each in study.photographs
    }


def _show_table(stage: Stage, performance: Performance, reports: int) -> None:
    results, references = performance.results, _references(performance)
    manifest = stage.bundle.manifest
    stage.console.print()
    stage.console.print(results_table(results, references, stage.console.width))
    stage.console.print(footnote(results, references), style="dim")
    stage.console.print(
        f"\n{len(results)} photographs in, reports of {reports} studies out, in {performance.seconds:.1f} s "
        f"(bundle {manifest.id} {manifest.version}).",
        markup=False,
    )


def _show_reports(stage: Stage, results: Sequence[Result], reports: Reports) -> None:
    """List the reports, and show one as text: best an adapted one with a finding."""
    console = stage.console
    names = {result.study_instance_uid: result.accession_number for result in results}
    console.print("\n[bold]Structured Reports at the PACS[/]")
    for study, received in sorted(reports.items(), key=lambda item: names.get(item[0], "")):
        for path, _ in received:
            console.print(f"  {names.get(study, study)}  {shown(path)}", markup=False, soft_wrap=True)
    best_first = sorted(results, key=lambda each: (each.adapter is None, not each.referable))
    example = next((each for each in best_first if each.study_instance_uid in reports), None)
    if example is None:
        return
    console.print(f"\n[bold]The one of {example.accession_number} as text[/]")
    text = render_text(reports[example.study_instance_uid][0][1])
    console.print("\n".join(f"  {line}" for line in text.splitlines()), markup=False, soft_wrap=True)


def _draw(stage: Stage, performance: Performance) -> None:
    settings, manifest = stage.settings, stage.bundle.manifest
    predictor = Predictor(stage.bundle, engine=settings.engine, threads=settings.engine_threads)
    photographs = [each for study in performance.studies for each in study.photographs]
    files = {each.sop_instance_uid: each.path for each in photographs}
    tiles = make_tiles(predictor, performance.results, files, _references(performance))
    title = f"fundus-worker demonstration: bundle {manifest.id} {manifest.version}"
    write_png(stage.folder.contact_sheet, draw_contact_sheet(tiles, title, manifest.activation_labels))


def _show_places(stage: Stage) -> None:
    console, folder = stage.console, stage.folder
    console.print("\n[bold]Look further[/]")
    for name, path in (
        ("contact sheet", folder.contact_sheet),
        ("photographs sent", folder.photographs),
        ("configuration", folder.configuration),
        ("logs", folder.logs),
    ):
        console.print(f"  {name:<17} {shown(path)}", markup=False, soft_wrap=True)
    console.print("\n[bold]SQL to try[/]")
    for query in QUERIES:
        command = query_command(shown(folder.data / "fundus.db"), query)
        console.print(f"  {command}", markup=False, soft_wrap=True)
