"""Camera rules as a checked structure; the syntax is explained in `camera_rules.yaml`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from dicom_io.errors import CameraRulesError

SCHEMA_VERSION = 1
_TEXT_FIELDS = ("manufacturer", "model", "serial", "software", "calling_ae")
_NUMBER_FIELDS = ("rows", "columns")
_FIELDS = (*_TEXT_FIELDS, *_NUMBER_FIELDS)
_KINDS = ("equals", "any_of", "contains", "present")
_RULE_KEYS = ("name", "camera", "when")


@dataclass(frozen=True)
class Condition:
    """One condition of a rule.

    Attributes:
        field: manufacturer, model, serial, software, calling_ae, rows or columns.
        kind: "any_of" (also for equals), "contains" or "present".
        values: What is asked for; empty for "present".
    """

    field: str
    kind: str
    values: tuple[str | int, ...]


@dataclass(frozen=True)
class CameraRule:
    """One rule: all conditions must hold.

    Attributes:
        name: Unique name.
        camera: Camera key; "{model}" stands for the model's slug.
        conditions: At least one.
    """

    name: str
    camera: str
    conditions: tuple[Condition, ...]

    @property
    def exact(self) -> bool:
        """Whether a match fixes the whole model string."""
        kinds = {condition.kind for condition in self.conditions if condition.field == "model"}
        return "any_of" in kinds or ("present" in kinds and "{model}" in self.camera)

    def as_data(self) -> list[Any]:
        """The rule as plain lists, for hashing."""
        conditions = [[condition.field, condition.kind, *condition.values] for condition in self.conditions]
        return [self.name, self.camera, conditions]


def parse_rules(content: str, source: str) -> list[CameraRule]:
    """Check the text of a rule file.

    Args:
        content: YAML text.
        source: Name of the file, for messages.

    Raises:
        CameraRulesError: On the first mistake; names source, rule and remedy.
    """
    try:
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise CameraRulesError(f"{source}: is no valid YAML: {error}") from error
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise CameraRulesError(f"{source}: must begin with 'schema_version: {SCHEMA_VERSION}'")
    _check_keys(data, ("schema_version", "rules"), source)
    if not isinstance(data.get("rules"), list) or not data["rules"]:
        raise CameraRulesError(f"{source}: 'rules' must be a list with at least one rule")
    rules = [_rule(entry, f"{source}: rule {index}") for index, entry in enumerate(data["rules"], 1)]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise CameraRulesError(f"{source}: two rules are named {name!r}; rename one")
    return rules


def _rule(entry: Any, where: str) -> CameraRule:
    if not isinstance(entry, dict):
        raise CameraRulesError(f"{where}: must be a mapping with {', '.join(_RULE_KEYS)}")
    where = f"{where} ({entry.get('name', 'without a name')})"
    _check_keys(entry, _RULE_KEYS, where)
    for key in ("name", "camera"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise CameraRulesError(f"{where}: '{key}' must be a text that is not empty")
    when = entry.get("when")
    if not isinstance(when, dict) or not when:
        raise CameraRulesError(f"{where}: 'when' must hold at least one of {', '.join(_FIELDS)}")
    _check_keys(when, _FIELDS, f"{where}: when")
    conditions = tuple(_condition(field, value, f"{where}: {field}") for field, value in when.items())
    rule = CameraRule(entry["name"], entry["camera"], conditions)
    if "{model}" in rule.camera and not any(condition.field == "model" for condition in conditions):
        raise CameraRulesError(f"{where}: a camera key with {{model}} needs a condition on model")
    return rule


def _condition(field: str, value: Any, where: str) -> Condition:
    if field in _NUMBER_FIELDS:
        numbers = value if isinstance(value, list) else [value]
        if not numbers or not all(type(number) is int and number > 0 for number in numbers):
            raise CameraRulesError(f"{where}: must be a number above 0, or a list of such numbers")
        return Condition(field, "any_of", tuple(numbers))
    if isinstance(value, str):
        value = {"equals": value}
    if not isinstance(value, dict) or len(value) != 1:
        raise CameraRulesError(f"{where}: must be a text, or one of {', '.join(_KINDS)} with its value")
    _check_keys(value, _KINDS, where)
    kind, wanted = next(iter(value.items()))
    if kind == "present":
        if wanted is not True:
            raise CameraRulesError(f"{where}: 'present' can only be true; leave the condition out instead")
        return Condition(field, "present", ())
    texts = wanted if kind == "any_of" and isinstance(wanted, list) else [wanted]
    if not texts or not all(isinstance(text, str) and _has_letters(text) for text in texts):
        raise CameraRulesError(f"{where}: '{kind}' needs text with letters or digits; quote numbers")
    return Condition(field, "contains" if kind == "contains" else "any_of", tuple(texts))


def _has_letters(text: str) -> bool:
    """Whether anything of `text` is left after normalising: "-" alone would match everything."""
    return any(character.isalnum() for character in text)


def _check_keys(mapping: dict[Any, Any], known: Iterable[str], where: str) -> None:
    """Refuse an unknown key, and name the nearest known one."""
    known = tuple(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise CameraRulesError(f"{where}: {key!r} is not known; {hint}")
