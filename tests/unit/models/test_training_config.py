"""Typed configurations: TOML in and out, errors by name, options on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from models.training.adapter import AdapterConfig
from models.training.commands.configured import ConfiguredCommand, configured
from models.training.commands.options import Out
from models.training.config import ConfigError, attribute_help, build_config, keys, load_config, to_toml
from models.training.engine import EngineConfig
from models.training.eyepacs_config import EyepacsConfig
from models.training.reproduce import ReferenceConfig

runner = CliRunner()


@dataclass(frozen=True)
class Inner:
    """An inner one.

    Attributes:
        steps: How often it is done,
            in a text of two lines.
        kind: Which ``kind``.
    """

    steps: int = 3
    kind: Literal["round", "square"] = "round"


@dataclass(frozen=True)
class Outer:
    """An outer one.

    Attributes:
        rate: How fast.
        loud: Whether it is heard.
        names: Some names.
        pair: Two numbers.
        inner: The inner one.

    Raises:
        ValueError: Too fast.
    """

    rate: float = 0.5
    loud: bool = False
    names: tuple[str, ...] = ("a", "b")
    pair: tuple[int, int] = (1, 2)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        """Refuse what is too fast."""
        if self.rate > 100:
            raise ValueError("rate is above 100")


def test_a_file_gives_what_it_holds_and_the_rest_has_its_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('rate = 2\nnames = ["x"]\n[inner]\nkind = "square"\n')
    found = load_config(Outer, file)
    assert found == Outer(rate=2.0, names=("x",), inner=Inner(kind="square"))
    assert isinstance(found.rate, float)


@pytest.mark.parametrize(
    "config", [ReferenceConfig(seed=3), AdapterConfig(cycle=2.5), EyepacsConfig(), Outer()]
)
def test_what_is_printed_reads_back(config: object, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert load_config(type(config), file) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rat": 1}, r"no key 'rat'; did you mean 'rate'\?"),
        ({"inner": {"step": 1}}, r"no key 'inner\.step'; did you mean 'inner\.steps'\?"),
        ({"wholly_other": 1}, "there are rate, loud, names, pair, inner"),
        ({"inner": {"steps": "3"}}, r"inner\.steps must be a whole number, not '3'"),
        ({"inner": {"steps": True}}, r"inner\.steps must be a whole number, not True"),
        ({"inner": {"steps": 1.5}}, r"inner\.steps must be a whole number"),
        ({"inner": {"kind": "oval"}}, r"inner\.kind must be one of 'round', 'square', not 'oval'"),
        ({"inner": 3}, "inner must be a table"),
        ({"loud": 1}, "loud must be true or false"),
        ({"rate": "fast"}, "rate must be a number"),
        ({"names": "a"}, "names must be a list, each a text"),
        ({"names": ["a", 1]}, "names must be a text in quotes, not 1"),
        ({"pair": [1]}, "pair must be a list of 2, each a whole number"),
        ({"rate": 101.0}, "rate is above 100"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        build_config(Outer, content, "c.toml")
    assert str(raised.value).startswith("c.toml: ")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("rate = \n")
    with pytest.raises(ConfigError, match=r"c\.toml"):
        load_config(Outer, file)


def test_help_is_the_docstrings() -> None:
    assert attribute_help(Inner) == {
        "steps": "How often it is done, in a text of two lines.",
        "kind": "Which `kind`.",
    }


def test_a_field_that_is_not_described_is_a_mistake() -> None:
    @dataclass(frozen=True)
    class Silent:
        """Says nothing."""

        steps: int = 1

    with pytest.raises(TypeError, match=r"Silent\.steps"):
        list(keys(Silent))


def outcome(arguments: list[str]) -> str:
    """What a command with the options of ``Outer`` got, or its error."""
    app = typer.Typer(rich_markup_mode="markdown")

    @app.command(cls=ConfiguredCommand)
    @configured(Outer)
    def show(config: Outer, engine: EngineConfig, *, out: Out) -> None:
        """Show what came in."""
        typer.echo(f"{config} {engine} {out}")

    return runner.invoke(app, arguments, env={"COLUMNS": "160"}).output.strip()


def test_the_command_line_beats_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("rate = 7.0\nloud = true\n[inner]\nsteps = 8\n[engine]\nthreads = 5\n")
    base = ["--out", "o", "--config", str(file)]
    wanted = Outer(rate=7.0, loud=True, inner=Inner(steps=8))
    assert outcome(base) == f"{wanted} {EngineConfig(threads=5)} o"
    # A value equal to the default still beats the file.
    given = ["--rate", "0.5", "--no-loud", "--inner.steps", "9", "--names", "x, y", "--pair", "3,4"]
    wanted = Outer(names=("x", "y"), pair=(3, 4), inner=Inner(steps=9))
    engine = EngineConfig(precision="bf16-mixed", threads=5)
    assert outcome([*base, *given, "--precision", "bf16-mixed"]) == f"{wanted} {engine} o"


def test_print_config_needs_nothing_else_and_reads_back(tmp_path: Path) -> None:
    printed = outcome(["--print-config", "--inner.kind", "square", "--threads", "3"])
    file = tmp_path / "c.toml"
    file.write_text(printed, encoding="utf-8")
    wanted = Outer(inner=Inner(kind="square"))
    assert outcome(["--out", "o", "--config", str(file)]) == f"{wanted} {EngineConfig(threads=3)} o"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--inner.kind", "oval"], "inner.kind must be one of"),
        (["--pair", "1,x"], "--pair must be a list of 2, each a whole number"),
        (["--pair", "1"], "--pair must be a list of 2"),
        (["--devices", "0"], "devices 0 is below 1"),
        (["--rate", "101"], "rate is above 100"),
        (["--inner.step", "1"], "--inner.steps"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], said: str) -> None:
    assert said in outcome(["--out", "o", *arguments])


def test_help_shows_meaning_and_default() -> None:
    shown = " ".join(outcome(["--help"]).split())
    for part in ("--inner.steps", "How often it is done", "[default: 3]", "--no-loud", "[default: a,b]"):
        assert part in shown
    assert "--accelerator" in shown
