"""A bundle is used only if it is, file by file, what was sealed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories.bundle import write_tiny_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.bundle import Bundle, installed_bundles, seal_bundle
from models.errors import (
    BundleChecksumError,
    BundleError,
    BundleFilesError,
    BundleNotFoundError,
    ManifestError,
    ModelError,
)
from models.manifest import MANIFEST_FILE, AdapterEntry, parse_manifest, to_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    file = folder / MANIFEST_FILE
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_a_sealed_bundle_loads_with_what_was_sealed(folder: Path) -> None:
    bundle = Bundle.load(folder)

    assert bundle.manifest.id == "tiny"
    assert set(bundle.manifest.files) == {"classifier.onnx", "MODEL_CARD.md", "adapters/simulated-blue.onnx"}
    assert bundle.classifier_path == folder / "classifier.onnx"
    assert bundle.adapter_paths == {"simulated-blue": folder / "adapters" / "simulated-blue.onnx"}
    assert bundle.digest == hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()


def test_a_manifest_survives_the_way_through_json(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest

    assert parse_manifest(to_json(manifest), folder / MANIFEST_FILE) == manifest


def test_sealing_again_writes_the_same_bytes_and_a_changed_file_another_digest(folder: Path) -> None:
    first = Bundle.load(folder)

    assert seal_bundle(folder, first.manifest).digest == first.digest

    (folder / "MODEL_CARD.md").write_text("# Another card\n")
    assert seal_bundle(folder, first.manifest).digest != first.digest


def test_further_files_may_be_sealed_and_are_then_checked_too(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest
    (folder / "NOTICE.txt").write_text("made from public data\n")

    assert "NOTICE.txt" in seal_bundle(folder, manifest).manifest.files

    (folder / "NOTICE.txt").write_text("made up\n")
    with pytest.raises(BundleChecksumError, match=r"NOTICE\.txt"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["classifier.onnx", "adapters/simulated-blue.onnx", "MODEL_CARD.md"])
def test_one_changed_byte_in_any_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(BundleChecksumError, match=re.escape(name)) as refused:
        Bundle.load(folder)

    assert refused.value.file == folder / name
    assert "again" in refused.value.remedy


@pytest.mark.parametrize(
    "name", ["classifier.onnx", "adapters/simulated-blue.onnx", "MODEL_CARD.md", MANIFEST_FILE]
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(BundleFilesError, match=re.escape(name)):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["extra.onnx", "adapters/notes.txt", ".hidden", "more/deep.bin"])
def test_a_file_that_the_manifest_does_not_list_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("?")

    with pytest.raises(BundleFilesError, match=re.escape(name)):
        Bundle.load(folder)


def test_a_link_is_refused_even_to_the_right_content(folder: Path, tmp_path: Path) -> None:
    elsewhere = (folder / "classifier.onnx").rename(tmp_path / "classifier.onnx")
    (folder / "classifier.onnx").symlink_to(elsewhere)

    with pytest.raises(BundleFilesError, match="link"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["classifier.onnx", "MODEL_CARD.md"])
def test_a_manifest_that_does_not_list_what_a_bundle_must_have_is_refused(folder: Path, name: str) -> None:
    def forget(content: dict[str, Any]) -> None:
        del content["files"][name]

    edit_manifest(folder, forget)

    with pytest.raises(BundleFilesError, match=re.escape(name)):
        Bundle.load(folder)


def test_sealing_asks_for_a_model_card(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest
    (folder / "MODEL_CARD.md").unlink()

    with pytest.raises(BundleFilesError, match="MODEL_CARD"):
        seal_bundle(folder, manifest)


def test_sealing_refuses_an_adapter_that_the_manifest_does_not_name(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest
    (folder / "adapters" / "other.onnx").write_bytes(b"?")

    with pytest.raises(BundleFilesError, match=r"other\.onnx"):
        seal_bundle(folder, manifest)


def change(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({field: value})


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda content: content.pop("thresholds"), "thresholds"),
        (change("colour", "red"), "colour"),
        (change("size", "64"), "size"),
        (change("size", 8), "size"),
        (change("opset", 16), "opset"),
        (change("schema_version", 2), "schema_version"),
        (change("thresholds", [0.5, 0.5, 0.5]), "thresholds"),
        (change("thresholds", [0.5, 0.0, 0.5, 0.5]), "thresholds.1"),
        (change("minimum_quality", 1.5), "minimum_quality"),
        (change("labels", ["a", "b", "c", "d", "a"]), "labels"),
        (change("activation_labels", []), "activation_labels"),
        (change("training_camera", "Kowa VX"), "training_camera"),
        (change("files", {"../escape": "0" * 64}), "files"),
        (change("files", {"classifier.onnx": "abc"}), "files.classifier.onnx"),
        (change("adapters", {"a": {"file": "adapters/b.onnx"}}), ""),
        (change("training_camera", "simulated-blue"), ""),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(
    folder: Path, edit: Callable[[dict[str, Any]], None], field: str
) -> None:
    edit_manifest(folder, edit)

    with pytest.raises(ManifestError, match=re.escape(MANIFEST_FILE)) as refused:
        Bundle.load(folder)

    assert refused.value.field.startswith(field)
    assert refused.value.field != "" or field == ""
    assert refused.value.remedy in str(refused.value)


def test_another_schema_version_has_a_remedy_of_its_own(folder: Path) -> None:
    edit_manifest(folder, change("schema_version", 2))

    with pytest.raises(ManifestError, match="reads version 1"):
        Bundle.load(folder)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0.0, 1.0, exclude_max=True))
def test_a_manifest_cut_short_anywhere_is_refused(folder: Path, fraction: float) -> None:
    # Given a manifest of which only the first part arrived (the last byte is a line end)
    whole = (folder / MANIFEST_FILE).read_bytes()
    cut = whole[: int(fraction * (len(whole) - 1))]

    with pytest.raises(ManifestError, match="JSON"):
        parse_manifest(cut, folder / MANIFEST_FILE)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"text"'])
def test_json_that_is_no_manifest_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as refused:
        parse_manifest(data, tmp_path / MANIFEST_FILE)

    assert refused.value.field == ""


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="JSON"):
        parse_manifest(b'{"id": "\xff\xfe"}', tmp_path / MANIFEST_FILE)


def test_an_invalid_manifest_cannot_be_constructed(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest

    with pytest.raises(ValidationError, match="cannot have an adapter"):
        dataclasses.replace(manifest, adapters={"kowa-vx-10": AdapterEntry(file="adapters/kowa-vx-10.onnx")})


def test_a_name_is_looked_up_among_the_bundles_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a program that comes with one bundle, and a working folder that holds another
    monkeypatch.setattr("models.bundle.BUNDLES_FOLDER", tmp_path / "installed")
    write_tiny_bundle(tmp_path / "installed" / "reference", version="2.0.0")
    write_tiny_bundle(tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")

    # Then a bare name is one that the program comes with, and a folder is written with a slash
    assert installed_bundles() == ("reference",)
    assert Bundle.load("reference").manifest.version == "2.0.0"
    assert Bundle.load("./mine").manifest.version == "1.0.0"
    with pytest.raises(BundleNotFoundError, match=r"come with the program: reference\..*\./mine"):
        Bundle.load("mine")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="nowhere") as refused:
        Bundle.load(tmp_path / "nowhere")

    assert isinstance(refused.value, BundleError)
    assert isinstance(refused.value, ModelError)


def test_the_summary_says_what_an_administrator_asks(folder: Path) -> None:
    bundle = Bundle.load(folder)

    lines = dict(re.split(r":\s+", line, maxsplit=1) for line in bundle.summary().splitlines())

    assert lines["bundle"] == "tiny 1.0.0"
    assert lines["digest"] == bundle.digest
    assert lines["labelled camera"] == "kowa-vx-10"
    assert lines["adapters"] == "simulated-blue"
    assert lines["thresholds"] == "≥1 at 0.5, ≥2 at 0.5, ≥3 at 0.5, ≥4 at 0.5"
    assert lines["files"].startswith("3, ")


def test_a_bundle_without_adapters_says_so(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny_bundle(tmp_path / "plain", adapters=()))

    assert re.search(r"^adapters:\s+none$", bundle.summary(), re.MULTILINE)
