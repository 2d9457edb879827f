"""Where configuration comes from, and how what is wrong with it is said.

Works on any tree of pydantic models; the product's own tree is in `worker.settings`. Later layers win: the
TOML file, then environment variables, then what the command line gives. The merged values are validated in
pydantic's strict JSON mode, so that `port = true` or `port = "11112"` is named as a mistake, not guessed at.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from worker.errors import SettingsError
from worker.settings_tree import (
    PREFIX,
    TYPE_NAMES,
    expected,
    kinds_of,
    leaves,
    rows_of,
    sections,
    table_of,
    variable,
)

RESERVED = frozenset({"FUNDUS_CONFIG"})  # names the file itself

# Kubernetes writes such variables into every container for a service called "fundus" or "fundus-…".
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "tuple_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Layer:
    """One source's values.

    Attributes:
        values: A nested mapping as TOML gives it.
        origin: What to call the source in a message, when `names` has nothing closer.
        names: For a location, the variable it came from.
        problems: What could not even be read.
    """

    values: dict[str, Any]
    origin: str
    names: dict[Location, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_toml(path: Path) -> Layer:
    """Read a configuration file.

    Raises:
        SettingsError: It is missing, cannot be read, or is not TOML.
    """
    try:
        return Layer(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        raise SettingsError([f"{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: cannot be read ({type(error).__name__})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path}: is not valid TOML: {error}"]) from error


def read_environment(model: type[BaseModel], environ: Mapping[str, str]) -> Layer:
    """Read the FUNDUS_… variables.

    Lists are JSON (`["A", "B"]`) and so are lists of tables; a list of texts may also be separated by commas.
    Variables that Kubernetes makes for a service of the same name are passed over.
    """
    known = {variable(path): (path, info) for path, info in leaves(model)}
    layer = Layer({}, "the environment")
    problems = []
    for name in sorted(n for n in environ if n.startswith(PREFIX) and n not in RESERVED):
        if name in known:
            path, info = known[name]
            try:
                put(layer.values, path, _from_text(info, environ[name]))
            except ValueError:
                problems.append(f"{name} cannot be read as {expected(info)}")
            layer.names[path] = name
        elif not _made_by_kubernetes(name, environ[name]):
            problems.append(f"{name} is not a setting{_suggestion(name, known)}")
    return Layer(layer.values, layer.origin, layer.names, tuple(problems))


def _made_by_kubernetes(name: str, value: str) -> bool:
    return bool(_KUBERNETES.search(name)) or value.startswith(("tcp://", "udp://", "sctp://"))


def _from_text(info: FieldInfo, text: str) -> Any:
    """A variable's text as the JSON value it stands for; raises ValueError when it stands for none."""
    if get_origin(info.annotation) is tuple:
        if rows_of(info) is None and not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        return json.loads(text)
    for kind in kinds_of(info):
        if kind in (bool, int, float):
            return TypeAdapter(kind).validate_strings(text.strip())
    return text


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested value, making the tables on the way."""
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else in `upper` replaces what `lower` has."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def validate(model: type[M], layers: Sequence[Layer]) -> M:
    """Merge the layers and build the model.

    Raises:
        SettingsError: With every problem of every layer.
    """
    problems = [problem for layer in layers for problem in layer.problems]
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer.values)
    try:
        settings = model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems += _describe(detail, model, layers)
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _describe(detail: ErrorDetails, model: type[BaseModel], layers: Sequence[Layer]) -> list[str]:
    """One pydantic error as sentences that name source, key, what is there and what belongs there."""
    location = detail["loc"]
    kind = detail["type"]
    if kind == "contradiction":
        return [str(problem) for problem in detail["ctx"]["problems"]]
    where = f"{_origin(location, layers)}: {_spelt(location)}"
    if kind == "extra_forbidden":
        return [f"{where} is not a setting{_nearest_key(location, model)}"]
    if kind == "missing":
        return [f"{where} is missing; add it"]
    if kind == "literal_error":
        return [f"{where} is {detail['input']!r}; expected {detail['ctx']['expected']}"]
    if kind in _EXPECTED:
        found = TYPE_NAMES.get(type(detail["input"]), "something else")
        return [f"{where} is {found}; expected {_EXPECTED[kind]}{_remedy(kind, detail['input'])}"]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    return [f"{where} {message}"]


def _remedy(kind: str, found: object) -> str:
    if isinstance(found, str) and kind in {"bool_type", "int_type", "float_type"}:
        return "; write it without quotes"
    if isinstance(found, str) and kind == "tuple_type":
        return "; put it in brackets"
    return ""


def _origin(location: Location, layers: Sequence[Layer]) -> str:
    """The layer that has the value, the last one first; where no layer has it, the one that has its table."""
    starts = [location[:end] for end in range(len(location), 0, -1)]
    holder = next((layer for at in starts for layer in reversed(layers) if _has(layer.values, at)), layers[0])
    return next((holder.names[at] for at in starts if at in holder.names), holder.origin)


def _has(values: Any, location: Location) -> bool:
    for step in location:
        try:
            values = values[step]
        except (LookupError, TypeError):  # no such key or item, or a plain value where a table should be
            return False
    return True


def _spelt(location: Location) -> str:
    """A location as it looks in the file: `[listener] port`, `[[destination]] 1: port`."""
    if len(location) == 1:
        return str(location[0])
    if isinstance(location[1], int):
        position = location[1] + 1
        if len(location) == 2:
            return f"{location[0]}, item {position},"
        return f"[[destination]] number {position}: {location[2]}".replace("destination", str(location[0]), 1)
    return f"[{location[0]}] {', item '.join(_one_based(step) for step in location[1:])}"


def _one_based(step: str | int) -> str:
    return str(step + 1) if isinstance(step, int) else step


def _nearest_key(location: Location, model: type[BaseModel]) -> str:
    """The nearest name in the same table, else the same name in another table."""
    wrong, siblings = str(location[-1]), sections(model)
    for step in location[:-1]:
        if isinstance(step, str):
            siblings = sections(table_of(siblings[step]) or rows_of(siblings[step]) or model)
    if near := difflib.get_close_matches(wrong, siblings, n=1):
        return f"; did you mean {near[0]}?"
    elsewhere = [_spelt(path) for path, _ in leaves(model) if path[-1] == wrong]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else f"; known here: {', '.join(siblings)}"


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else "; see `fundus-worker check --example` for all of them"
