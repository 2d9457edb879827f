"""The document that operations read, against the views themselves."""

from __future__ import annotations

import re
from pathlib import Path

from factories.views import ask
from sqlalchemy import Engine, inspect
from sqlalchemy.orm import Session

DOCUMENT = Path(__file__).parents[2] / "deploy" / "docs" / "sql.md"


def _section(view: str) -> str:
    """The text under the heading that names the view."""
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    (found,) = [each for each in sections if re.search(rf"\b{view}\b", each.splitlines()[0])]
    return found


def test_every_view_and_column_is_documented(engine: Engine) -> None:
    inspector = inspect(engine)
    for view in inspector.get_view_names():
        named = set(re.findall(r"\w+", _section(view)))
        columns = {column["name"] for column in inspector.get_columns(view)}
        assert columns - named == set(), view


def test_columns_written_as_a_list_stand_in_the_views_order(engine: Engine) -> None:
    inspector = inspect(engine)
    lists = [
        re.split(r",\s+", each)
        for each in re.findall(r"`([a-z_0-9]+(?:,\s+[a-z_0-9]+){3,})`", DOCUMENT.read_text())
    ]
    actual = [
        [column["name"] for column in inspector.get_columns(view)] for view in inspector.get_view_names()
    ]
    assert len(lists) == 8
    for each in lists:
        assert each in actual


def test_every_query_of_the_document_runs(session: Session) -> None:
    queries = [
        query
        for block in re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
        for query in block.split(";")
        if query.strip()
    ]
    assert len(queries) >= 9
    for query in queries:
        assert ask(session, query) == [], query
