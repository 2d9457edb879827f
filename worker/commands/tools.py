"""`db upgrade`, `cameras explain`, `bundle show|verify`, `demo`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dicom_io.camera import CameraRules
from dicom_io.errors import DicomIoError
from dicom_io.header import FundusHeader, colour_refusal, read_header
from models.bundle import Bundle, installed_bundles
from models.manifest import to_json
from models.predictor import Predictor
from worker import database as db
from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    explained,
    settings_of,
    stderr,
    stdout,
)
from worker.routing import choose_route, judge
from worker.settings import Settings

_CLOSEST = 5
BundleArgument = Annotated[
    str | None, typer.Argument(metavar="[BUNDLE]", help="Name or folder; default: the configured one.")
]


@explained
def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the database's tables and views up to date; safe to run again, and by several at once."""
    engine = db.create_database_engine(settings_of(config).resolved_database_url)
    try:
        db.upgrade(engine)
        db.require_schema(engine)
    finally:
        engine.dispose()
    stdout.print(f"the {engine.dialect.name} database is up to date")


@explained
def cameras_explain(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="DICOM files.", exists=True)],
    config: ConfigOption = None,
    calling_ae: Annotated[str, typer.Option(help="AE title of the sender, for rules that ask for it.")] = "",
    every_rule: Annotated[bool, typer.Option("--all", help="Show every rule, not only the closest.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which camera rule matches each file, why the others do not, and the route that follows."""
    settings = settings_of(config)
    rules = CameraRules.load(settings.camera.rules_file)
    bundle = Bundle.load(settings.bundle)
    explanations, failed = [], False
    for file in files:
        try:
            explanations.append(_explain(file, read_header(file), rules, bundle, settings, calling_ae))
        except DicomIoError as error:
            failed = True
            stderr.print(f"[bold red]{file}:[/] {error}")
    if as_json:
        typer.echo(json.dumps(explanations, indent=2))
    else:
        for each in explanations:
            _show_explanation(each, every_rule)
    if failed:
        raise typer.Exit(NEEDS_ATTENTION)


def _explain(  # noqa: PLR0917 - the parts of one question
    file: Path,
    header: FundusHeader,
    rules: CameraRules,
    bundle: Bundle,
    settings: Settings,
    calling_ae: str,
) -> dict[str, Any]:
    match = rules.match(header, calling_ae)
    route, adapter = choose_route(match, bundle.manifest.training_camera, bundle.manifest.adapters)
    verdict = judge(route, match.camera, header.sop_class_uid, settings.camera)
    return {
        "file": str(file),
        "manufacturer": header.manufacturer,
        "model_name": header.model_name,
        "camera": match.camera,
        "rule": match.rule,
        "exact": match.exact,
        "route": str(route),
        "adapter": adapter,
        "policy": verdict.policy,
        "reason_code": colour_refusal(header) or verdict.reason_code,
        "laterality": [asdict(reading) for reading in header.laterality],
        "rules": [asdict(each) for each in rules.explain(header, calling_ae)],
    }


def _show_explanation(each: dict[str, Any], every_rule: bool) -> None:
    stdout.print(f"[bold]{each['file']}[/]")
    stdout.print(f"  manufacturer {each['manufacturer']!r}, model {each['model_name']!r}", markup=False)
    named = (
        f"camera {each['camera']} by rule {each['rule']}"
        if each["camera"]
        else "camera unknown: no rule matches"
    )
    kind = (
        ""
        if each["camera"] is None
        else (" (whole model string)" if each["exact"] else " (part of the model string)")
    )
    stdout.print(f"  {named}{kind}", markup=False)
    adapter = f" with adapter {each['adapter']}" if each["adapter"] else ""
    reason = f", reason {each['reason_code']}" if each["reason_code"] else ""
    stdout.print(f"  route {each['route']}{adapter}, policy {each['policy']}{reason}", markup=False)
    others = sorted(
        (rule for rule in each["rules"] if not rule["matched"]), key=lambda rule: len(rule["failed"])
    )
    shown = others if every_rule else others[:_CLOSEST]
    for rule in shown:
        stdout.print(f"    not {rule['rule']}: {'; '.join(rule['failed'])}", markup=False)
    if len(shown) < len(others):
        stdout.print(f"    … and {len(others) - len(shown)} more rules (--all)", markup=False)


@explained
def bundle_show(
    bundle: BundleArgument = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what a bundle is: labels, cameras, thresholds, measured figures, checksums."""
    loaded = Bundle.load(bundle or settings_of(config).bundle)
    if as_json:
        typer.echo(to_json(loaded.manifest).decode())
    else:
        stdout.print(loaded.summary(), markup=False)
        stdout.print(f"installed bundles: {', '.join(installed_bundles())}", markup=False)


@explained
def bundle_verify(bundle: BundleArgument = None, config: ConfigOption = None) -> None:
    """Check a bundle's checksums and contract, and run its graphs once."""
    settings = settings_of(config)
    loaded = Bundle.load(bundle or settings.bundle)
    loaded.verify()
    choice = Predictor(loaded, engine=settings.engine, threads=settings.engine_threads).engine
    stdout.print(
        f"{loaded.manifest.id} {loaded.manifest.version} is intact and runs on {choice.name}", markup=False
    )


@explained
def demo(
    output: Annotated[Path, typer.Option(help="Folder for reports, pictures, database and logs.")] = Path(
        "demo-output"
    ),
    broker: Annotated[
        str,
        typer.Option(metavar="local|redis", help="local: one process; redis: separate ones through Celery."),
    ] = "local",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave worker and PACS running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the whole job on this machine: real photographs over DICOM, reports back, rows in SQL.

    Exit status 0 only when every report arrived and says what the database says.
    """
    if broker not in ("local", "redis"):
        raise typer.BadParameter(f"{broker}: choose local or redis", param_hint="--broker")
    from worker.demo.run import run_demo

    chosen: Literal["", "redis"] = "redis" if broker == "redis" else ""
    raise typer.Exit(run_demo(output, chosen, keep))
