"""A tree of pydantic models as names: what can be set, as which variable, to what, with which explanation."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PREFIX = "FUNDUS_"
DELIMITER = "__"
TYPE_NAMES: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}


def sections(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the name that people write."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def table_of(info: FieldInfo) -> type[BaseModel] | None:
    """The model of a `[table]` field, None for a plain value or a list."""
    annotation = info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def rows_of(info: FieldInfo) -> type[BaseModel] | None:
    """The model of the items of a `[[list of tables]]` field, None for anything else."""
    items = get_args(info.annotation) if get_origin(info.annotation) is tuple else ()
    return items[0] if items and isinstance(items[0], type) and issubclass(items[0], BaseModel) else None


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every value that can be set on its own, depth first, with the path of names that leads to it."""
    for name, info in sections(model).items():
        table = table_of(info)
        if table is None:
            yield (*path, name), info
        else:
            yield from leaves(table, (*path, name))


def variable(path: Sequence[str]) -> str:
    """The environment variable of a setting: ("listener", "port") is FUNDUS_LISTENER__PORT."""
    return PREFIX + DELIMITER.join(path).upper()


def kinds_of(info: FieldInfo) -> list[Any]:
    """The types that a plain value may have, without their constraints."""
    united = get_origin(info.annotation) in (Union, UnionType)
    kinds = get_args(info.annotation) if united else (info.annotation,)
    return [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]


def expected(info: FieldInfo) -> str:
    """What a setting takes, in words."""
    if rows_of(info) is not None:
        return "a JSON list of tables"
    if get_origin(info.annotation) is tuple:
        return "a list of texts"
    return next((TYPE_NAMES[kind] for kind in kinds_of(info) if kind in TYPE_NAMES), "a text")


def example(model: type[BaseModel]) -> str:
    """A TOML file that sets nothing: each key at its default behind a `#`, under its description."""
    plain, tables = [], []
    for name, info in sections(model).items():
        table, rows = table_of(info), rows_of(info)
        if table is not None:
            tables.append(f"[{name}]\n" + "\n".join(_example_key(*item) for item in sections(table).items()))
        elif rows is not None:
            keys = "\n".join(_example_key(*item) for item in sections(rows).items())
            tables.append(f"{_comment(info)}\n# [[{name}]]\n{keys}")
        else:
            plain.append(_example_key(name, info))
    return "\n\n".join(["\n".join(plain), *tables]) + "\n"


def _example_key(name: str, info: FieldInfo) -> str:
    return f"{_comment(info)}\n# {name} = {_example_value(info)}"


def _comment(info: FieldInfo) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(info.description or "", 100))


def _example_value(info: FieldInfo) -> str:
    if info.examples:
        return json.dumps(info.examples[0])
    return json.dumps("" if info.default is None else info.default, default=str)
