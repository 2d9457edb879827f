from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories.bundle import write_tiny_bundle
from factories.commands import Installation, install, run

from models import bundle


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return install(tmp_path)


def test_the_configured_bundle_is_shown(installed: Installation) -> None:
    answer = installed.run("bundle", "show")
    assert answer.status == 0
    assert "bundle: tiny 1.0.0" in answer.words
    assert "labelled camera: kowa-vx-10" in answer.words
    assert f"model card: {installed.folder / 'bundle' / 'MODEL_CARD.md'}" in answer.words


def test_another_bundle_is_shown(installed: Installation, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", version="2.0.0")
    answer = installed.run("bundle", "show", str(other))
    assert "bundle: tiny 2.0.0" in answer.words


def test_installed_bundles_are_named(
    installed: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "BUNDLES_FOLDER", tmp_path / "shelf")
    assert "installed: none" in installed.run("bundle", "show").words
    write_tiny_bundle(tmp_path / "shelf" / "mine")
    assert "installed: mine" in installed.run("bundle", "show").words


def test_a_manifest_as_json(installed: Installation) -> None:
    found = json.loads(installed.run("bundle", "show", "--json").out)
    assert (found["id"], found["version"]) == ("tiny", "1.0.0")
    assert set(found["files"]) == {"MODEL_CARD.md", "classifier.onnx", "adapters/simulated-blue.onnx"}


def test_an_intact_bundle(installed: Installation) -> None:
    answer = installed.run("bundle", "verify")
    assert (answer.status, answer.out) == (0, "tiny 1.0.0 is intact and runs on onnx\n")
    assert answer.err == ""
    found = json.loads(installed.run("bundle", "verify", "--json").out)
    assert (found["bundle_id"], found["engine"], len(found["digest"])) == ("tiny", "onnx", 64)


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_tampered_bundle(installed: Installation, command: str) -> None:
    # Given one byte more
    graph = installed.folder / "bundle" / "classifier.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    # When
    answer = installed.run("bundle", command)
    # Then
    assert answer.status == 2
    assert f"error: {graph}: SHA-256 is" in answer.err
    assert "Copy the bundle again" in answer.err
    assert answer.out == ""


def test_a_bundle_that_nobody_knows() -> None:
    answer = run("bundle", "show", "nobodys")
    assert (answer.status, "no bundle of that name" in answer.err) == (2, True)
