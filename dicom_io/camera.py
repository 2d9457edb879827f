"""Which camera took a photograph, by rules on what its header says about the device.

A rule set is data (`camera_rules.yaml`, whose head explains the syntax); `camera_rules` checks it,
this module applies it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dicom_io.camera_rules import CameraRule, Condition, parse_rules
from dicom_io.errors import CameraRulesError
from dicom_io.header import FundusHeader

_OWN_RULES = Path(__file__).with_name("camera_rules.yaml")


@dataclass(frozen=True)
class CameraMatch:
    """Result of applying the rules to one header.

    Attributes:
        camera: Camera key, such as "kowa-vx-10"; None when no rule matches.
        exact: Whether the whole model string was equal to what the rule asks for.
        rule: Name of the rule that matched.
    """

    camera: str | None
    exact: bool
    rule: str | None


@dataclass(frozen=True)
class RuleVerdict:
    """What one rule said about a header.

    Attributes:
        rule: Name of the rule.
        matched: Whether all its conditions hold.
        failed: The conditions that do not hold, such as "manufacturer: 'Canon' is not 'Kowa'".
    """

    rule: str
    matched: bool
    failed: tuple[str, ...]


class CameraRules:
    """An ordered rule set; the first rule that matches wins.

    Args:
        rules: The rules in order.

    Attributes:
        digest: SHA-256 over the rules' content; comments and layout do not count.
        ask_for_calling_ae: Whether any rule looks at who sent the image.
    """

    def __init__(self, rules: Sequence[CameraRule]) -> None:
        self._rules = tuple(rules)
        content = json.dumps([rule.as_data() for rule in self._rules], sort_keys=True)
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self.ask_for_calling_ae = any(
            condition.field == "calling_ae" for rule in self._rules for condition in rule.conditions
        )

    @classmethod
    def load(cls, path: Path | None = None) -> CameraRules:
        """Read and check a rule file.

        Args:
            path: A YAML file; None takes the package's own.

        Raises:
            CameraRulesError: When the file cannot be used; names file, rule and remedy.
        """
        source = path or _OWN_RULES
        try:
            content = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CameraRulesError(f"{source}: cannot be read as UTF-8 text ({error})") from error
        return cls(parse_rules(content, str(source)))

    def match(self, header: FundusHeader, calling_ae: str) -> CameraMatch:
        """Camera of an image that `calling_ae` sent."""
        device = _device(header, calling_ae)
        for rule in self._rules:
            if not any(True for _ in _failures(rule, device)):
                model = str(device["model"])
                return CameraMatch(rule.camera.replace("{model}", slug(model)), rule.exact, rule.name)
        return CameraMatch(None, False, None)

    def explain(self, header: FundusHeader, calling_ae: str) -> list[RuleVerdict]:
        """Verdict of every rule, in order; the first that matched is the one that counts."""
        device = _device(header, calling_ae)
        failures = [(rule.name, tuple(_failures(rule, device))) for rule in self._rules]
        return [RuleVerdict(name, not failed, failed) for name, failed in failures]


@lru_cache(maxsize=4096)
def normalised(text: str) -> str:
    """`text` case-folded (Unicode NFKC), with everything but letters and digits dropped."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(character for character in folded if character.isalnum())


def slug(text: str) -> str:
    """The words of `text` in lower case with hyphens between them."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", text).casefold()).strip("-")


def _device(header: FundusHeader, calling_ae: str) -> Mapping[str, str | int]:
    """The values that conditions may ask for."""
    return {
        "manufacturer": header.manufacturer,
        "model": header.model_name,
        "serial": header.device_serial,
        "software": header.software,
        "calling_ae": calling_ae,
        "rows": header.rows,
        "columns": header.columns,
    }


def _failures(rule: CameraRule, device: Mapping[str, str | int]) -> list[str]:
    """Conditions of `rule` that do not hold."""
    return [
        f"{condition.field}: {device[condition.field]!r} {_complaint(condition)}"
        for condition in rule.conditions
        if not _holds(condition, device[condition.field])
    ]


def _holds(condition: Condition, actual: str | int) -> bool:
    if isinstance(actual, int):
        return actual in condition.values
    text = normalised(actual)
    if condition.kind == "present":
        return bool(text)
    wanted = [normalised(str(value)) for value in condition.values]
    return any(part in text for part in wanted) if condition.kind == "contains" else text in wanted


def _complaint(condition: Condition) -> str:
    wanted = " or ".join(repr(value) for value in condition.values)
    return {"present": "is empty", "contains": f"does not contain {wanted}"}.get(
        condition.kind, f"is not {wanted}"
    )
