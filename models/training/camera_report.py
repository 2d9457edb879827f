"""The one page to read after a new camera's training: HTML that needs no other file."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from models.training.benchmark import charts
from models.training.loss_curves import curve_svg, read_curves
from models.training.new_camera import CameraFacts, distance_rows, in_words
from models.training.style_distance import spread

TEMPLATE = Path(__file__).with_name("camera_report.html")
REPORT = "report.html"
_SHOWN = 4
_THUMBNAIL, _DETAIL = 320, 160
_CURVES = {
    "adversarial": "Adversarial term of both generators. 0.5 is chance; near 2 for long: it is lost.",
    "cycle": "Cycle term: what is left of the residuals on the way there and back. It should fall.",
    "identity": "Identity term: what is done to pictures that have the wanted style. It should stay low.",
    "discriminators": "Loss of both discriminators. 0.5 is chance; near 0 for long: they have won.",
    "residual": "Mean absolute residual, 0 to 1: by how much pictures are changed. It should settle.",
}
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """Photographs of the new camera and what the exported adapter makes of them, uint8 (N, S, S, 4)."""

    before: Pictures
    after: Pictures


def write_report(
    out: Path, facts: CameraFacts, *, failure: str = "", shown: Shown | None = None, bundle: str = ""
) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        out: Run folder; its ``log.jsonl`` and ``samples/`` are read.
        facts: What is known.
        failure: Why there is no adapter; empty where there is one.
        shown: Pictures before and after, where there is an adapter.
        bundle: Id and version of the bundle that was written, or empty.

    Returns:
        The file.
    """
    name = f"adapter-{facts.camera}"
    sections = {
        "title": f"Adapter for {escape(facts.camera)}",
        "subtitle": escape(_subtitle(facts, bundle)),
        "tone": "#b3261e" if failure or facts.warnings else "#1f5fbf",
        "verdict": escape(_verdict(facts, failure)),
        "warnings": _warnings(facts.warnings),
        "pictures": "".join(_pictures(out, name, shown)),
        "distance": _distance(facts),
        "curves": _curves(out, name),
        "next": _next(out, facts, failure, bundle),
        "settings": _settings(facts),
    }
    file = out / REPORT
    temporary = file.with_suffix(".partial")
    temporary.write_text(Template(TEMPLATE.read_text("utf-8")).substitute(sections), encoding="utf-8")
    return temporary.replace(file)


def _subtitle(facts: CameraFacts, bundle: str) -> str:
    counts = facts.photographs
    to = f"; written into the bundle {bundle}" if bundle else ""
    return (
        f"{counts['first_style']} photographs of the new camera, {counts['second_style']} of the labelled "
        f"one, {counts['left_out']} files left out; feature extractor of {facts.extractor}{to}. "
        "Research use only."
    )


def _verdict(facts: CameraFacts, failure: str) -> str:
    if failure:
        return f"There is no adapter: {failure}"
    words = in_words(facts.distances) if facts.distances else ""
    return (
        f"{words} No labelled photograph of the new camera was seen: whether its decisions are right is not "
        "known before it is measured."
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return "<p>No warnings.</p>"
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">{lines}</ul>'


def _pictures(out: Path, name: str, shown: Shown | None) -> Iterable[str]:
    if shown is not None:
        places = spread(len(shown.before), _SHOWN)
        yield (
            "<p>The second row should have the labelled camera's colours and sharpness, and every vessel and "
            "lesion of the first: nothing added, nothing gone. The details are from the middle of each "
            "photograph, pixel for pixel.</p>"
        )
        for label, pictures in (("new camera", shown.before), ("through the adapter", shown.after)):
            yield _row(label, [charts.thumbnail(pictures[i], _THUMBNAIL) for i in places])
        middle = shown.before.shape[1] // 2
        for label, pictures in (("detail, new camera", shown.before), ("detail, adapted", shown.after)):
            yield _row(label, [charts.detail(pictures[i], (middle, middle), _DETAIL) for i in places])
    sheets = sorted((out / "samples").glob(f"{name}-*.png"))
    for sheet in sheets[-1:]:
        step = int(sheet.stem.rpartition("-")[2])
        data = base64.b64encode(sheet.read_bytes()).decode("ascii")
        yield f"<h3>Sample sheet after step {step}</h3>"
        yield f'<img class="sheet" alt="sample sheet" src="data:image/png;base64,{data}">'
    if shown is None and not sheets:
        yield "<p>There are none: training ended before the first sample sheet.</p>"


def _row(label: str, addresses: Sequence[str]) -> str:
    images = "".join(f'<img alt="{escape(label)}" src="{address}">' for address in addresses)
    return f'<figure><figcaption>{escape(label)}</figcaption><div class="pairs">{images}</div></figure>'


def _distance(facts: CameraFacts) -> str:
    if facts.distances is None:
        return "<p>Not measured: there is no adapter.</p>"
    rows = [
        (label, f"{each.colour:.3f}", f"{each.sharpness:.2f}", f"{each.features:.3f}")
        for label, each in distance_rows(facts.distances)
    ]
    head = ("", "colour", "sharpness", "classifier's features")
    parts = [
        f"<p>0 is the same style; the last row is what other people alone make out. Measured on at most "
        f"{facts.compared} photographs of each camera, which trained the adapter. Colour: largest difference "
        "of a channel's mean or standard deviation, of 1. Sharpness: |ln| of the ratio of fine detail. "
        "Features: distance of what the classifier sees, in its standard deviations.</p>",
        _table(head, rows),
    ]
    if facts.answers:
        labels = {
            "before": "new camera, without adapter",
            "after": "new camera, through the adapter",
            "labelled": "labelled camera",
        }
        shares = [
            (labels[name], f"{each.gradable:.0%}", f"{each.referable:.0%}")
            for name, each in facts.answers.items()
        ]
        parts += [
            "<h3>What the bundle's classifier says of them</h3>",
            _table(("", "gradable", "referable"), shares),
            "<p>Other people, another share of disease: these need not agree. A large change between the "
            "first two rows says how many decisions hang on the adapter, not which of them are right.</p>",
        ]
    return "".join(parts)


def _curves(out: Path, name: str) -> str:
    curves = read_curves(out / "log.jsonl", name)
    if not curves:
        return "<p>No measurements were recorded.</p>"
    figures = [
        f"<figure>{curve_svg(term, curve)}<figcaption><b>{escape(term)}</b> {escape(_CURVES.get(term, ''))}"
        "</figcaption></figure>"
        for term, curve in curves.items()
        if len(curve[0])
    ]
    command = f"tensorboard --logdir {shlex.quote(str(out))}"
    return (
        f'<div class="charts">{"".join(figures)}</div><p>Pale: every step; strong: running mean. '
        f"<code>{escape(command)}</code> has the same.</p>"
    )


def _next(out: Path, facts: CameraFacts, failure: str, bundle: str) -> str:
    if failure:
        return (
            "<p>Change what the message above names, choose another <code>--out</code>, and train again. "
            "Nothing was written that a worker could use.</p>"
        )
    if not bundle:
        return (
            f"<p>The graph is <code>adapters/{escape(facts.camera)}.onnx</code>. Give <code>--bundle</code> "
            "in place of <code>--classifier-run</code> to get a bundle that a worker can use.</p>"
        )
    folder = (out / "bundle").resolve()
    measure = (
        f"fundus-train evaluate --bundle {shlex.quote(str(folder))} --camera {facts.camera} \\\n"
        "    --images GRADED_DIR --labels GRADES.csv --shifted GRADED_DIR"
    )
    use = f'fundus-worker bundle verify {shlex.quote(str(folder))}\n\n# fundus.toml\nbundle = "{folder}"'
    return (
        "<ol><li><b>Look</b> at the pictures above, and at more of them in <code>samples/</code>.</li>"
        "<li><b>Measure</b> on graded photographs of the new camera that trained nothing (100 or more; "
        "some referable). With one folder of the new camera given twice, <code>unadapted</code> is what "
        "the classifier does without the adapter and <code>adapted</code> with it:"
        f"<pre>{escape(measure)}</pre></li>"
        "<li><b>Use</b> it: check the bundle, name it in the worker's configuration, restart. The worker "
        f"uses the adapter for images that its camera rules tag <code>{escape(facts.camera)}</code>:"
        f"<pre>{escape(use)}</pre></li></ol>"
    )


def _settings(facts: CameraFacts) -> str:
    ended = {name: value for name, value in facts.training.items() if not isinstance(value, Mapping | list)}
    rows: list[tuple[str, str]] = [*_flat(facts.settings)]
    rows += [(f"ended: {name}", _said(value)) for name, value in ended.items()]
    rows += [(f"SHA-256 of {name}", value) for name, value in facts.data_fingerprint.items()]
    rows += [("source revision", facts.commit)]
    if facts.parity is not None:
        rows.append(("torch and ONNX Runtime differ by", f"{facts.parity:.1e}"))
    return _table(("setting", "value"), rows)


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", _said(value)


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
