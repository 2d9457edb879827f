"""The table of deploy/docs/inputs.md: what becomes of each file of the corpus."""

from __future__ import annotations

from corpus.case import NOT_OFFERED, Case, Outcome
from corpus.catalogue import GROUPS

_HEAD = ("| file | what is odd | answer | state and reason | report |", "|---|---|---|---|---|")


def table() -> str:
    """Every case, in a table for each group."""
    lines: list[str] = []
    for title, cases in GROUPS.items():
        lines += ["", f"### {title}", "", *_HEAD, *(_row(case) for case in cases)]
    return "\n".join([*lines, ""])


def _row(case: Case) -> str:
    cells = (f"`{case.name}`", case.quirk, _answer(case.outcome), _states(case.outcome), str(case.outcome))
    return f"| {' | '.join(cells)} |"


def _answer(outcome: Outcome) -> str:
    if NOT_OFFERED in outcome.statuses:
        return f"no context: `{outcome.rejection}`"
    statuses = ", ".join(dict.fromkeys(f"0x{status:04X}" for status in outcome.statuses))
    return statuses if outcome.rejection is None else f"{statuses}: `{outcome.rejection}`"


def _states(outcome: Outcome) -> str:
    return ", ".join(
        dict.fromkeys(state + (f": `{reason}`" if reason else "") for state, reason in outcome.results)
    )
