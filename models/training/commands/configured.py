"""Commands whose options come from configuration dataclasses, so that nothing is said twice.

    @app.command(cls=ConfiguredCommand)
    @configured(AdapterConfig)
    def adapter(config: AdapterConfig, engine: EngineConfig, *, out: Out) -> None: ...

gives ``adapter`` one option for every value of ``AdapterConfig`` and ``EngineConfig`` (their help is the
docstrings'), ``--config FILE`` and ``--print-config``. The command line beats the file, the file the default.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from models.training.commands.options import foreseen
from models.training.config import (
    ConfigError,
    Key,
    build_config,
    element_types,
    expected,
    keys,
    nested,
    read_toml,
    to_toml,
    toml_value,
)
from models.training.engine import EngineConfig

_FILE = "--config"
_PRINT = "--print-config"
_ENGINE = "engine"
_WORDS = {"true": True, "false": False}


class ConfiguredCommand(TyperCommand):
    """A command that needs none of its required options to print a configuration."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; with ``--print-config`` nothing else is required."""
        if _PRINT in args:
            for parameter in self.params:
                parameter.required = False
        return super().parse_args(ctx, args)


def configured(cls: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a configuration and of the engine.

    Args:
        cls: The configuration's dataclass. The command gets it as ``config``, and an ``EngineConfig`` as
            ``engine``: in files the table ``[engine]``, on the command line without a prefix.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        known = dict(_named(cls))

        @functools.wraps(command)
        def run(ctx: typer.Context, **given: Any) -> None:
            chosen = {
                key.path: _parsed(key, given[name])
                for name, (key, _) in known.items()
                if ctx.get_parameter_source(name).name == "COMMANDLINE"  # type: ignore[union-attr]  # it was parsed
            }
            with foreseen():
                config, engine = effective(cls, given["config"], chosen)
            if given["print_config"]:
                typer.echo(whole_toml(config, engine), nl=False)
                return
            own = {name: value for name, value in given.items() if name not in known}
            own.pop("config"), own.pop("print_config")
            command(config=config, engine=engine, **own)

        del run.__wrapped__  # the signature is another one now
        _sign(run, command, known)
        return run

    return decorate


def effective(
    cls: type, file: Path | None, chosen: Mapping[tuple[str, ...], Any]
) -> tuple[Any, EngineConfig]:
    """The configuration of a file with the command line's values laid over it.

    Raises:
        ConfigError: The file, or a value, is no such configuration.
    """
    content = read_toml(file) if file is not None else {}
    source = str(file) if file is not None else "command line"
    engine = content.pop(_ENGINE, {})
    if not isinstance(engine, Mapping):
        raise ConfigError(f"{source}: {_ENGINE} must be a table, not {engine!r}")
    above = nested({path: value for path, value in chosen.items() if path[0] != _ENGINE}, content)
    below = nested({path[1:]: value for path, value in chosen.items() if path[0] == _ENGINE}, engine)
    return build_config(cls, above, source), build_config(EngineConfig, below, source)


def whole_toml(config: Any, engine: EngineConfig) -> str:
    """What ``--print-config`` prints and a run folder keeps: a file that ``--config`` reads back."""
    return f"{to_toml(config)}\n[{_ENGINE}]\n{to_toml(engine)}"


def _named(cls: type) -> Iterator[tuple[str, tuple[Key, str]]]:
    """Parameter name, key and heading of every option."""
    for key in keys(cls):
        heading = "Settings" if len(key.path) == 1 else f"Settings: {'.'.join(key.path[:-1])}"
        yield "__".join(key.path), (key, heading)
    for key in keys(EngineConfig, (_ENGINE,)):
        yield "__".join(key.path), (key, "Where it runs")


def _sign(run: Callable[..., None], command: Callable[..., None], known: Mapping[str, Any]) -> None:
    """The signature that typer makes options of: the command's own ones, then the configuration's."""
    hints = typing.get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in ("config", _ENGINE)
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    from_keys = [_option(name, *known[name]) for name in known]
    parameters = [context, *own, *_common(), *from_keys]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks for
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _common() -> list[inspect.Parameter]:
    file = typer.Option(
        _FILE,
        help="TOML file with any of the settings below; the command line beats it.",
        exists=True,
        dir_okay=False,
        rich_help_panel="Configuration",
    )
    show = typer.Option(
        _PRINT,
        help="Print the effective settings as such a file, each explained, and stop.",
        rich_help_panel="Configuration",
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter("config", keyword, default=None, annotation=Annotated[Path | None, file]),
        inspect.Parameter("print_config", keyword, default=False, annotation=Annotated[bool, show]),
    ]


def _option(name: str, key: Key, heading: str) -> inspect.Parameter:
    """One option: numbers and switches as such, everything else as text that ``_parsed`` reads."""
    path = key.path[1:] if key.path[0] == _ENGINE else key.path
    flag = ".".join(path).replace("_", "-")
    text, default, kind, metavar = key.help, key.default, key.kind, None
    declared = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    if typing.get_origin(kind) is typing.Literal:
        kind, metavar = str, "|".join(typing.get_args(kind))
    elif kind not in (int, float, bool, str):
        kind, metavar = str, "A,B,…"
        default = ",".join(str(each) for each in key.default)
    option = typer.Option(declared, help=text, rich_help_panel=heading, metavar=metavar)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _parsed(key: Key, value: Any) -> Any:
    """The value of an option; a list is written with commas."""
    if typing.get_origin(key.kind) is not tuple:
        return value
    parts = [part.strip() for part in str(value).split(",") if part.strip()]
    return _elements(key, parts)


def _elements(key: Key, parts: Sequence[str]) -> tuple[Any, ...]:
    kinds = element_types(key.kind, len(parts))
    try:
        if len(kinds) != len(parts):
            raise ValueError(f"{len(parts)} values")
        return tuple(
            _WORDS[part] if kind is bool else kind(part) for kind, part in zip(kinds, parts, strict=True)
        )
    except (ValueError, KeyError) as error:
        raise typer.BadParameter(
            f"--{key.dotted} must be {expected(key.kind)}, written with commas between, such as "
            f"{','.join(toml_value(each) for each in key.default)}; not {','.join(parts)!r}"
        ) from error
