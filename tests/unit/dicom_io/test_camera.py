from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io.camera import CameraMatch, CameraRules, normalised, slug
from dicom_io.camera_rules import parse_rules
from dicom_io.errors import CameraRulesError
from dicom_io.header import FundusHeader

OWN = CameraRules.load()
HEADER = FundusHeader("1.1", "1.2", "1.3", "1.4", "1.2.840.10008.1.2.1")


def match(manufacturer: str, model: str, rules: CameraRules = OWN) -> CameraMatch:
    return rules.match(replace(HEADER, manufacturer=manufacturer, model_name=model), "CAMERA")


def rules_of(text: str) -> CameraRules:
    return CameraRules(parse_rules("schema_version: 1\nrules:\n" + text, "test.yaml"))


@pytest.mark.parametrize(
    ("manufacturer", "model"),
    [("Kowa", "VX-10"), ("KOWA", "vx 10"), ("Kowa Company, Ltd.", "VX-10\u03b1"), ("kowa", "VX-10i")],
)
def test_the_labelled_camera_is_matched_exactly(manufacturer: str, model: str) -> None:
    assert match(manufacturer, model) == CameraMatch("kowa-vx-10", True, "kowa-vx-10")


@pytest.mark.parametrize(
    ("manufacturer", "model"),
    [("Kowa", "VX-100"), ("Kowa", "VX-10 plus"), ("Kowa", "XVX-10"), ("Kowa", "VX-20"), ("Kowa", "VX-10?i")],
)
def test_a_similar_model_is_only_named(manufacturer: str, model: str) -> None:
    found = match(manufacturer, model)
    if model == "VX-10?i":
        assert found.exact, "punctuation does not count"
    else:
        assert (found.camera, found.exact) == ("kowa-vx", False)


def test_the_labelled_model_of_another_maker_is_not_the_labelled_camera() -> None:
    assert match("Canon", "VX-10").camera is None


def test_a_simulated_camera_is_named_after_its_model() -> None:
    assert match("SIMULATED", "blue") == CameraMatch("simulated-blue", True, "simulated")
    assert match("SIMULATED", "random-3").camera == "simulated-random-3"
    assert match("SIMULATED", "") == CameraMatch(None, False, None)


@pytest.mark.parametrize(
    ("manufacturer", "model", "camera"),
    [
        ("Topcon", "3DOCT-1Maestro2", "topcon-maestro2"),
        ("TOPCON", "Triton plus", "topcon-triton"),
        ("", "Aurora", "optomed-aurora"),
        ("CenterVue SpA", "Eidon FA", "centervue-eidon"),
        ("Heidelberg Engineering", "Spectralis", "heidelberg-spectralis"),
        ("Carl Zeiss Meditec", "CLARUS 500", "zeiss-clarus"),
        ("Carl Zeiss Meditec", "CLARUS 700", "zeiss-clarus"),
        ("Carl Zeiss Meditec", "VISUCAM 500", "zeiss-visucam"),
        ("Topcon", "TRC-NW400", "topcon-trc-nw400"),
        ("Topcon", "TRC-NW8", "topcon-trc-nw8"),
        ("Canon", "CR-2 AF", "canon-cr-2"),
        ("Canon", "CR-2 Plus AF", "canon-cr-2-plus-af"),
        ("Canon", "CX-1", "canon-cx-1"),
        ("Canon", "CR-DGi", "canon-cr-dgi"),
        ("CenterVue", "DRS", "centervue-drs"),
        ("CenterVue", "DRSplus", "centervue-drs-plus"),
        ("Optovue", "iCam", "optovue-icam"),
        ("Nidek", "AFC-330", "nidek-afc-330"),
        ("Kowa", "nonmyd 7", "kowa-nonmyd-7"),
        ("Optos", "Daytona", "optos-daytona"),
        ("Optos", "California", "optos-california"),
        ("Volk", "Viva", "volk-viva"),
        ("Volk", "Pictor Plus", "volk-pictor-plus"),
        ("Forus", "3nethra classic", "forus-3nethra"),
        ("Phelcom", "Eyer", "phelcom-eyer"),
        ("", "FOP", "fop"),
        ("Crystalvue", "NFC-700", "crystalvue-nfc-700"),
        ("Acme", "Retina One", None),
        ("", "", None),
    ],
)
def test_known_header_values_name_their_camera(manufacturer: str, model: str, camera: str | None) -> None:
    assert match(manufacturer, model).camera == camera


def test_the_first_rule_wins() -> None:
    rules = rules_of("- {name: a, camera: x, when: {model: M}}\n- {name: b, camera: y, when: {model: M}}\n")

    assert match("", "M", rules).rule == "a"
    verdicts = rules.explain(replace(HEADER, model_name="M"), "AE")
    assert [(verdict.rule, verdict.matched) for verdict in verdicts] == [("a", True), ("b", True)]


def test_every_field_can_be_asked_for() -> None:
    rules = rules_of(
        "- name: all\n  camera: c\n  when:\n"
        "    manufacturer: {equals: Maker}\n    model: {any_of: [A, B]}\n    serial: S1\n"
        "    software: {contains: '2'}\n    calling_ae: CAM\n    rows: 10\n    columns: [20, 30]\n"
    )
    header = replace(
        HEADER,
        manufacturer="maker",
        model_name="b",
        device_serial="s-1",
        software="v1.2",
        rows=10,
        columns=30,
    )

    assert rules.match(header, "CAM") == CameraMatch("c", True, "all")
    assert rules.match(header, "OTHER").camera is None
    assert rules.match(replace(header, rows=11), "CAM").camera is None


def test_explain_says_why_a_rule_does_not_match() -> None:
    rules = rules_of(
        "- name: r\n  camera: c\n  when:\n    manufacturer: {any_of: [Kowa, Canon]}\n"
        "    model: {contains: VX}\n    serial: {present: true}\n    rows: [1, 2]\n"
    )

    [verdict] = rules.explain(replace(HEADER, manufacturer="Acme", model_name="M1", rows=3), "AE")

    assert not verdict.matched
    assert verdict.failed == (
        "manufacturer: 'Acme' is not 'Kowa' or 'Canon'",
        "model: 'M1' does not contain 'VX'",
        "serial: '' is empty",
        "rows: 3 is not 1 or 2",
    )


def test_a_rule_without_the_whole_model_is_never_exact() -> None:
    for when in ("{manufacturer: Kowa}", "{model: {contains: X}}", "{model: {present: true}}", "{rows: 5}"):
        rules = rules_of(f"- {{name: r, camera: c, when: {when}}}\n")
        found = rules.match(replace(HEADER, manufacturer="Kowa", model_name="X", rows=5), "AE")
        assert (found.camera, found.exact) == ("c", False)


def test_the_digest_is_that_of_the_rules_not_of_the_text() -> None:
    rule = "- {name: a, camera: x, when: {model: M}}\n"
    assert rules_of(rule).digest == rules_of("# a comment\n" + rule).digest
    assert rules_of(rule).digest != rules_of(rule.replace("M}", "N}")).digest
    assert len(OWN.digest) == 64


RULE = "{name: r, camera: c, when: {model: M}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [", "is no valid YAML"),
        ("- a", "must begin with 'schema_version: 1'"),
        ("schema_version: 2\nrules: []", "must begin with 'schema_version: 1'"),
        ("schema_version: 1\nrules: []", "at least one rule"),
        ("schema_version: 1\nrule: []", "'rule' is not known; did you mean 'rules'?"),
        ("schema_version: 1\nrules: [7]", "rule 1: must be a mapping"),
        ("schema_version: 1\nrules: [{camera: c, when: {model: M}}]", "rule 1 (without a name): 'name' must"),
        ("schema_version: 1\nrules: [{name: r, camera: '', when: {model: M}}]", "rule 1 (r): 'camera' must"),
        ("schema_version: 1\nrules: [{name: r, camera: c}]", "'when' must hold at least one of"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {modelx: M}}]", "did you mean 'model'?"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {xyzzy: M}}]", "known are manufacturer"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {model: 7}}]", "must be a text, or one of"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {model: {like: M}}}]", "'like' is not known"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {model: '-'}}]", "letters or digits"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {model: {any_of: [500]}}}]", "quote numbers"),
        (
            "schema_version: 1\nrules: [{name: r, camera: c, when: {model: {any_of: []}}}]",
            "letters or digits",
        ),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {model: {present: false}}}]", "only be true"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {rows: '9'}}]", "a number above 0"),
        ("schema_version: 1\nrules: [{name: r, camera: c, when: {rows: []}}]", "a number above 0"),
        (
            "schema_version: 1\nrules: [{name: r, camera: 'x-{model}', when: {rows: 9}}]",
            "needs a condition on model",
        ),
        (f"schema_version: 1\nrules: [{RULE}, {RULE}]", "two rules are named 'r'; rename one"),
    ],
)
def test_a_mistake_in_the_rules_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)

    with pytest.raises(CameraRulesError) as caught:
        CameraRules.load(path)

    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"# \xff")
    for name in ("none.yaml", "latin.yaml"):
        with pytest.raises(CameraRulesError, match=f"{name}: cannot be read"):
            CameraRules.load(tmp_path / name)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert all(character.isalnum() for character in once)


@given(st.text(), st.text(alphabet=" -_.,/()", max_size=5))
def test_case_and_punctuation_do_not_count(text: str, noise: str) -> None:
    assert normalised(noise + text + noise) == normalised(text)
    assert normalised(text.casefold()) == normalised(text)


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_a_slug_is_fit_for_a_file_name(text: str) -> None:
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert bool(slug(text)) == bool(normalised(text))


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_the_header_says_exactness_needs_the_whole_model(manufacturer: str, model: str) -> None:
    found = match(manufacturer, model)
    if found.camera == "kowa-vx-10":
        assert normalised(model) in ("vx10", "vx10\u03b1", "vx10i")
    assert (found.camera is None) == (found.rule is None)
