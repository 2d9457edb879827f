"""`cameras explain`: which rule names a photograph's camera, and the route that follows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_io.errors import DicomIoError
from worker.commands.options import (
    NEEDS_ATTENTION,
    ConfigOption,
    JsonOption,
    explained,
    os_problem,
    settings_of,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from dicom_io.camera import CameraRules
    from dicom_io.header import FundusHeader
    from models.bundle import Bundle
    from worker.settings import Settings

_CLOSEST = 3
_ROUTES = {
    "labelled": "the camera that the classifier was trained on",
    "adapter": "translated by the bundle's adapter for this camera",
    "known": "a known camera for which the bundle has no adapter",
    "unknown": "a camera that no rule names",
}
_POLICIES = {
    "classify": "its result goes into the report",
    "withhold": "graded in SQL, no grade in the report",
    "refuse": "not analysed",
}


@explained
def cameras_explain(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="DICOM files.", show_default=False)],
    config: ConfigOption = None,
    calling_ae: Annotated[str, typer.Option(help="AE title of the sender, for rules that ask for it.")] = "",
    every_rule: Annotated[bool, typer.Option("--all", help="Show every rule, not only the closest.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which camera rule matches each file, why the others do not, and the route that follows.

    fundus-worker cameras explain -c fundus.toml image1.dcm image2.dcm

    Nothing is sent, stored or analysed. Exit status 1 when a file could not be read; the others are shown.
    """
    from dicom_io.camera import CameraRules
    from dicom_io.header import read_header
    from models.bundle import Bundle

    settings = settings_of(config, quiet=True)
    rules = CameraRules.load(settings.camera.rules_file)
    bundle = Bundle.load(settings.bundle)
    explanations: list[dict[str, Any]] = []
    failed = False
    for file in files:
        try:
            found = {"file": str(file), **_explain(read_header(file), rules, bundle, settings, calling_ae)}
        except (DicomIoError, OSError) as error:
            failed = True
            problem = os_problem(error) if isinstance(error, OSError) else f"{file}: {error}"
            found = {"file": str(file), "error": problem}
            stderr.print("[bold red]error:[/] ", end="")
            stderr.print(problem, markup=False)
        explanations.append(found)
        if not as_json and "error" not in found:
            _show(found, every_rule)
    if as_json:
        typer.echo(json.dumps(explanations, indent=2))
    if failed:
        raise typer.Exit(NEEDS_ATTENTION)


def _explain(
    header: FundusHeader, rules: CameraRules, bundle: Bundle, settings: Settings, calling_ae: str
) -> dict[str, Any]:
    from dicom_io.header import colour_refusal
    from worker.caller_policy import camera_settings
    from worker.routing import choose_route, judge

    unfit = colour_refusal(header)
    match = rules.match(header, calling_ae)
    route, adapter = choose_route(match, bundle.manifest.training_camera, bundle.manifest.adapters)
    policies = camera_settings(settings, calling_ae)
    verdict = judge(route, match.camera, header.sop_class_uid, policies)
    return {
        "manufacturer": header.manufacturer,
        "model_name": header.model_name,
        "camera": match.camera,
        "rule": match.rule,
        "exact": match.exact,
        "route": str(route),
        "adapter": adapter,
        "policy": verdict.policy,
        "validated": not verdict.unvalidated,
        "not_colour": unfit is not None,
        "reason_code": unfit or verdict.reason_code,
        "laterality": [asdict(reading) for reading in header.laterality],
        "rules": [asdict(each) for each in rules.explain(header, calling_ae)],
    }


def _show(each: dict[str, Any], every_rule: bool) -> None:
    def line(text: str) -> None:
        stdout.print(text, markup=False)

    stdout.print(each["file"], style="bold", markup=False)
    line(f"  header   manufacturer {each['manufacturer']!r}, model {each['model_name']!r}")
    how = "equals the whole model string" if each["exact"] else "names it by a part of the model string"
    line(
        f"  camera   {each['camera']} (rule {each['rule']} {how})" if each["camera"] else "  camera   unknown"
    )
    adapter = f" {each['adapter']}" if each["adapter"] else ""
    line(f"  route    {each['route']}{adapter}: {_ROUTES[each['route']]}")
    line(f"  side     {', '.join(_side(reading) for reading in each['laterality']) or 'not said'}")
    _show_outcome(each)
    others = [rule for rule in each["rules"] if not rule["matched"]]
    shown = others if every_rule else sorted(others, key=lambda rule: len(rule["failed"]))[:_CLOSEST]
    for rule in shown:
        line(f"  not      {rule['rule']}: {'; '.join(rule['failed'])}")
    if len(shown) < len(others):
        line(f"           … and {len(others) - len(shown)} more rules (--all)")


def _side(reading: dict[str, Any]) -> str:
    return str(reading["value"] or reading["reason_code"])


def _show_outcome(each: dict[str, Any]) -> None:
    from worker.reasons import REASONS

    # What the header says of the picture counts before any policy about cameras.
    outcome = _POLICIES["refuse" if each["not_colour"] else each["policy"]]
    code = each["reason_code"]
    flagged = "" if each["validated"] or code else ", flagged: nobody validated this camera"
    stdout.print(f"  result   {outcome}{flagged}{f': {code}' if code else ''}", markup=False)
    if code:
        stdout.print(f"  remedy   {REASONS[code].remedy}", markup=False)
