"""Write the tables of deploy/docs: configuration keys, reason codes, and what becomes of which input.

usage: reference.py [--check]      with --check, change nothing and exit 1 when a document is out of step
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from corpus.table import table as inputs_table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.reasons import REASONS
from worker.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- begin: written by `make fmt` -->", "<!-- end -->"


def settings_table(model: type[BaseModel] = Settings) -> str:
    """The configuration table of operations.md."""
    return "\n".join(("| key | default | meaning |", "|---|---|---|", *settings_rows(model)))


def settings_rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One line a key; the keys of a table carry the table's name."""
    for name, info in model.model_fields.items():
        key = prefix + (info.alias or name)
        if (inner := table_behind(info)) is not None:
            yield from settings_rows(inner, key + ".")
        else:
            yield f"| `{key}` | {default_of(info)} | {cell(info.description or '')} |"


def table_behind(info: FieldInfo) -> type[BaseModel] | None:
    """The model behind a field, be it a table (`[listener]`) or a list of tables (`[[destination]]`)."""
    for candidate in (info.annotation, *get_args(info.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def default_of(info: FieldInfo) -> str:
    """A default as TOML writes it."""
    if info.is_required():
        return "must be given"
    if info.default in (None, "", ()):
        return "empty"
    return f"`{json.dumps(info.default, default=str)}`"


def reasons_table() -> str:
    """The table of reasons.md."""
    rows = (
        f"| `{each.code}` | {each.scope} | {'yes' if each.blocks_negative else 'no'} "
        f"| {cell(each.text)} | {cell(each.remedy)} |"
        for each in REASONS.values()
    )
    return "\n".join(
        ("| code | about | withholds a negative | meaning | what to do |", "|---|---|---|---|---|", *rows)
    )


def cell(text: str) -> str:
    """Text that does not end its cell."""
    return text.replace("|", "\\|")


def with_table(text: str, table: str) -> str:
    """The document with the lines between the two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Write or check the documents; `tests`, where the corpus is, must be on Python's path."""
    status = 0
    tables = {"operations.md": settings_table(), "reasons.md": reasons_table(), "inputs.md": inputs_table()}
    for name, table in tables.items():
        document = DOCS / name
        found = document.read_text(encoding="utf-8")
        wanted = with_table(found, table)
        if found != wanted and "--check" in arguments:
            sys.stderr.write(f"{document} is out of step with the program; `make fmt` rewrites its table\n")
            status = 1
        elif found != wanted:
            document.write_text(wanted, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
