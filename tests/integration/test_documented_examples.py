from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from factories.repository import ROOT, tracked_files
from sqlalchemy import text

from worker.database import create_database_engine, reading, upgrade
from worker.settings import load_settings


def blocks(language: str) -> list[str]:
    """The code blocks of one language in all documents."""
    documents = (ROOT / path for path in tracked_files() if path.suffix == ".md")
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [found for document in documents for found in fence.findall(document.read_text())]


def test_the_documented_sql_runs(database_url: str) -> None:
    engine = create_database_engine(database_url)
    upgrade(engine)
    statements = [each for block in blocks("sql") for each in block.split(";") if each.strip()]
    assert len(statements) >= 4

    with reading(engine).connect() as connection:
        for statement in statements:
            assert connection.execute(text(statement)).all() == []
    engine.dispose()


def test_every_documented_view_is_there(database_url: str) -> None:
    engine = create_database_engine(database_url)
    upgrade(engine)
    views = set(re.findall(r"`(v_\w+)`", (ROOT / "deploy" / "docs" / "operations.md").read_text()))
    assert len(views) >= 10

    with reading(engine).connect() as connection:
        for view in views:
            connection.execute(text(f"SELECT * FROM {view}"))  # noqa: S608 - names of our own documents
    engine.dispose()


@pytest.mark.parametrize("number", range(len(blocks("toml"))))
def test_the_documented_configurations_are_valid(number: int, tmp_path: Path) -> None:
    file = tmp_path / "fundus.toml"
    file.write_text(blocks("toml")[number])

    settings = load_settings(file, environ={})

    assert len(settings.destinations) == len(tomllib.loads(file.read_text()).get("destination", ()))


def test_the_configuration_of_the_compose_file_is_valid() -> None:
    settings = load_settings(ROOT / "deploy" / "compose" / "fundus.toml", environ={"FUNDUS_DATA_DIR": "data"})

    assert settings.listener.allowed_callers == ("ORTHANC",)
