from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.reason import Reason, Scope
from worker.reasons import REASONS, reason

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|NOT_COLOUR")


def names_a_reason(node: ast.AST) -> bool:
    """Whether a target, keyword or parameter is called reason_code (or reason, or …_reason)."""
    name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
    return isinstance(name, str) and re.fullmatch(r"_?(\w+_)?reason(_code)?", name, re.IGNORECASE) is not None


def texts(node: ast.AST | None) -> Iterator[str]:
    if node is not None:
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and CODE.fullmatch(each.value):
                yield each.value


def codes_used(tree: ast.Module) -> Iterator[str]:
    """Texts that are given to, assigned to or compared with something called reason_code."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword() if names_a_reason(node):
                values: list[ast.expr | None] = [node.value]
            case ast.Assign() if any(names_a_reason(target) for target in node.targets):
                values = [node.value]
            case ast.AnnAssign() if names_a_reason(node.target):
                values = [node.value]
            case ast.Compare() if names_a_reason(node.left):
                values = [*node.comparators]
            case ast.Call() if _raises_a_refusal(node):
                values = [node.args[0]]
            case _:
                values = []
        for value in values:
            yield from texts(value)


def _raises_a_refusal(node: ast.Call) -> bool:
    """`RefusedPixelsError("PIXELS_MISSING", …)`: an error whose first argument is its reason code."""
    name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
    return bool(node.args) and name.endswith("Error")


def sources() -> list[Path]:
    return [
        path
        for package in ("dicom_io", "models", "worker")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "reasons.py" and "training" not in path.parts
    ]


def test_every_code_that_the_program_uses_is_in_the_list() -> None:
    unknown = {
        f"{path.relative_to(ROOT)}: {code}"
        for path in sources()
        for code in codes_used(ast.parse(path.read_text(encoding="utf-8")))
        if code not in REASONS
    }
    assert unknown == set()


@pytest.mark.parametrize(
    "line",
    [
        'f(reason_code="NOT_IN_LIST")',
        'reason_code: str = "NOT_IN_LIST"',
        'self.reason_code = "A" if x else "NOT_IN_LIST"',
        'if image.reason_code in ("A", "NOT_IN_LIST"): pass',
        'raise RefusedPixelsError("NOT_IN_LIST", 3)',
    ],
)
def test_the_search_for_codes_finds_them(line: str) -> None:
    assert list(codes_used(ast.parse(line))) == ["NOT_IN_LIST"]


@pytest.mark.parametrize("each", REASONS.values(), ids=lambda each: each.code)
def test_a_reason_can_be_read(each: Reason) -> None:
    assert CODE.fullmatch(each.code)
    assert each.text.endswith(".")
    assert each.text.count(". ") == 0, "one sentence"
    assert each.remedy.endswith(".")
    assert not re.search(r"[A-Z]+_[A-Z]+", each.text), "no code in what a doctor reads"


def test_only_images_and_studies_can_keep_an_eye_from_a_negative_result() -> None:
    for each in REASONS.values():
        if each.scope in {Scope.EYE, Scope.DELIVERY, Scope.DOOR}:
            assert not each.blocks_negative
        elif each.code != "NOT_COLOUR":
            assert each.blocks_negative


def test_a_reason_is_found_by_its_code() -> None:
    assert reason("NOT_COLOUR").scope == "image"
    assert not reason("NOT_COLOUR").blocks_negative
    with pytest.raises(KeyError):
        reason("NO_SUCH_CODE")
