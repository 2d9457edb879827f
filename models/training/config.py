"""Typed configurations: frozen dataclasses that load from TOML, say what is wrong by name, and print as TOML.

A field is an ``int``, ``float``, ``bool``, ``str``, a ``Literal`` of strings, a ``tuple`` of one of these, or
another such dataclass, which is a table of the file. Its help is its entry under "Attributes:" in the
docstring of its class.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from models.errors import ModelError

Config = TypeVar("Config")
_SCALARS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotes",
}


class ConfigError(ModelError):
    """A configuration that cannot be used; the message names the key and what was expected."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One value of a configuration.

    Attributes:
        path: Names from the outermost table to the value.
        kind: Its type.
        default: Its default, or ``dataclasses.MISSING``.
        help: What it means.
    """

    path: tuple[str, ...]
    kind: Any
    default: Any
    help: str

    @property
    def dotted(self) -> str:
        """The path as people write it, ``lesions.learning_rate``."""
        return ".".join(self.path)


def load_config(cls: type[Config], file: Path) -> Config:
    """Read a configuration from a TOML file; what is not there has its default.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or holds something that is no configuration.
    """
    return build_config(cls, read_toml(file), str(file))


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        ConfigError: It cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def build_config(cls: type[Config], content: Mapping[str, Any], source: str = "configuration") -> Config:
    """Make a configuration of nested mappings, as TOML gives them.

    Args:
        cls: The dataclass.
        content: Keys and values; a missing one has its default.
        source: What messages begin with, e.g. the file.

    Raises:
        ConfigError: An unknown key (the nearest known one is named), a value of a wrong type, or one that the
            class refuses.
    """
    return _build(cls, content, source, ())


def _build(cls: type[Config], content: Mapping[str, Any], source: str, path: tuple[str, ...]) -> Config:
    kinds = field_types(cls)
    for name in content:
        if name not in kinds:
            raise ConfigError(f"{source}: {_unknown('.'.join((*path, name)), name, kinds, path)}")
    values = {name: _value(kinds[name], content[name], source, (*path, name)) for name in content}
    try:
        return cls(**values)
    except (ValueError, ModelError) as error:
        raise ConfigError(f"{source}: {'.'.join(path) + ': ' if path else ''}{error}") from error


def _unknown(dotted: str, name: str, known: Mapping[str, Any], path: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"no key {dotted!r}; did you mean {'.'.join((*path, near[0]))!r}?"
    return f"no key {dotted!r}; there are {', '.join(known)}"


def _value(kind: Any, value: Any, source: str, path: tuple[str, ...]) -> Any:
    """A value of the file as the field's type wants it."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{source}: {'.'.join(path)} must be a table, not {value!r}")
        return _build(kind, value, source, path)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{source}: {'.'.join(path)} must be {expected(kind)}, not {value!r}")
        inner = element_types(kind, len(value))
        if len(inner) != len(value):
            raise ConfigError(f"{source}: {'.'.join(path)} must be {expected(kind)}, not {value!r}")
        return tuple(_value(each, item, source, path) for each, item in zip(inner, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = (
        value in typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else type(value) is kind
    )
    if not fits:
        raise ConfigError(f"{source}: {'.'.join(path)} must be {expected(kind)}, not {value!r}")
    return value


def expected(kind: Any) -> str:
    """A type in words, for messages."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(repr(value) for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        arguments = typing.get_args(kind)
        if arguments[-1] is Ellipsis:
            return f"a list, each {expected(arguments[0])}"
        return f"a list of {len(arguments)}, each {expected(arguments[0])}"
    if kind not in _SCALARS:
        raise TypeError(f"a configuration cannot hold {kind!r}")
    return _SCALARS[kind]


def element_types(kind: Any, count: int) -> tuple[Any, ...]:
    """The types of a tuple's elements; ``count`` times the same for ``tuple[X, ...]``."""
    arguments = typing.get_args(kind)
    return (arguments[0],) * count if arguments[-1] is Ellipsis else arguments


def field_types(cls: type) -> dict[str, Any]:
    """Resolved types of a dataclass's fields, in their order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def keys(cls: type, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Every value of a configuration, nested ones after those of their table.

    Raises:
        TypeError: The class has a field of another type, or one that its docstring leaves out.
    """
    texts, kinds = attribute_help(cls), field_types(cls)
    tables = []
    for field in dataclasses.fields(cls):
        name, kind = field.name, kinds[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            tables.append((name, kind))
            continue
        if name not in texts:
            raise TypeError(f"{cls.__name__}.{name} is not described under 'Attributes:'")
        expected(kind)
        yield Key((*path, name), kind, field.default, texts[name])
    for name, kind in tables:
        yield from keys(kind, (*path, name))


def attribute_help(cls: type) -> dict[str, str]:
    """Entries under "Attributes:" of a class's docstring (Google style), each on one line."""
    found = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(cls) or "", re.MULTILINE)
    if found is None:
        return {}
    entries = re.split(r"^(?=\S)", textwrap.dedent(found.group(1)), flags=re.MULTILINE)
    pairs = (entry.split(":", 1) for entry in entries if ":" in entry)
    return {name.strip(): " ".join(text.replace("``", "`").split()) for name, text in pairs}


def to_toml(config: Any) -> str:
    """A configuration as a TOML file that ``load_config`` reads back, each key below what it means."""
    lines: list[str] = []
    table: tuple[str, ...] = ()
    for key in keys(type(config)):
        if key.path[:-1] != table:
            table = key.path[:-1]
            lines += ["", f"[{'.'.join(table)}]"]
        value = config
        for name in key.path:
            value = getattr(value, name)
        lines += [f"# {line}" for line in textwrap.wrap(key.help, 100)]
        lines.append(f"{key.path[-1]} = {toml_value(value)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def toml_value(value: Any) -> str:
    """One value in TOML's notation."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def nested(pairs: Mapping[tuple[str, ...], Any], base: Mapping[str, Any] = types.MappingProxyType({})) -> Any:
    """Values by path laid over nested mappings; ``base`` is not changed."""
    content: dict[str, Any] = {key: dict(v) if isinstance(v, Mapping) else v for key, v in base.items()}
    for path, value in pairs.items():
        if len(path) == 1:
            content[path[0]] = value
            continue
        table = content.get(path[0], {})
        content[path[0]] = nested({path[1:]: value}, table if isinstance(table, Mapping) else {})
    return content
