"""Honest senders in a crowd, measured: `python tests/bench/load_door.py --help`.

Ten senders send a study each, alone; then again while two hundred associations are held open, fifty senders
trickle a byte a second and ten thousand probes connect and hang up. The figures belong to the machine; what
should hold on any is the factor (below 2) and that threads, descriptors and memory come back.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from factories.bundle import write_tiny_bundle
from factories.dcmtk import storescp_process
from factories.door_load import Load, Outcome, peak, run
from factories.process import Footprint, worker

MEGABYTE = 1024 * 1024


def main() -> int:
    """Run the load that the command line asks for; 0 when the factor is below the limit."""
    arguments = parsed()
    load = Load(**{each.name: getattr(arguments, each.name) for each in fields(Load)})
    listener = {"allowed_callers": ["*"], "maximum_associations": arguments.maximum_associations}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        bundle = write_tiny_bundle(folder / "bundle")
        with (
            storescp_process(folder / "pacs") as pacs,
            worker(
                folder / "worker",
                bundle=bundle,
                pacs_port=pacs.port,
                listener=listener,
                spool={"reserve_mb": 0},
            ) as served,
        ):
            outcome = run(served, load)
    figures = outcome.figures()
    sys.stdout.write(readable(outcome) + "\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if outcome.factor <= arguments.most else 1


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    meaning = (Load.__doc__ or "").partition("Attributes:")[2]
    for each in fields(Load):
        said = next(
            (line.strip() for line in meaning.splitlines() if line.strip().startswith(each.name + ":")), ""
        )
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=type(each.default),
            default=each.default,
            help=f"{said.partition(': ')[2]} [{each.default}]",
        )
    parser.add_argument("--maximum-associations", type=int, default=64, help="The listener's. [64]")
    parser.add_argument("--most", type=float, default=2.0, help="Largest factor for exit status 0. [2.0]")
    parser.add_argument(
        "--folder", type=Path, help="Where to put the installation; default: the temporary folder."
    )
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    return parser.parse_args()


def readable(outcome: Outcome) -> str:
    """The figures in words."""
    load, crowd = outcome.load, outcome.crowd
    alone, crowded = outcome.figures()["alone_s"], outcome.figures()["crowded_s"]
    lines = [
        f"{load.honest} senders, {load.objects} objects of {load.object_kb} kB each: "
        f"{alone[0]:.1f} to {alone[-1]:.1f} s alone, {crowded[0]:.1f} to {crowded[-1]:.1f} s in the crowd, "
        f"factor {outcome.factor:.2f}",
        f"crowd: {load.idle} idle, {load.slow} slow, {crowd.get('probes', 0)} probes; associations "
        f"{crowd.get('accepted', 0)} accepted, {crowd.get('rejected', 0)} rejected, "
        f"{crowd.get('ended', 0)} cut off, {crowd.get('unanswered', 0)} not answered",
        f"honest senders refused {sum(each.refused for each in outcome.crowded.sent)} times, "
        f"cut off {sum(each.broken for each in outcome.crowded.sent)} times",
        f"rows: {', '.join(f'{count} {code}' for code, count in outcome.rejections.items())}",
        f"process before: {_words(outcome.before)}",
        f"process at most: {_words(peak(outcome.during))}",
        f"process after: {_words(outcome.after)}",
    ]
    return "\n".join(lines)


def _words(footprint: Footprint) -> str:
    return (
        f"{footprint.resident_bytes / MEGABYTE:.0f} MB, {footprint.threads} threads, "
        f"{footprint.descriptors} descriptors"
    )


if __name__ == "__main__":
    sys.exit(main())
