"""A new camera from two folders and a bundle: what is left out, measured, shipped and said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factories.bundle import tiny_adapter, write_tiny_bundle
from factories.commands import run
from factories.extractor import lived_trunk, write_bundle_with_extractor
from factories.fundus import Drawing, draw
from onnx import save
from typer.testing import CliRunner

from models.bundle import Bundle, seal_bundle
from models.networks.classifier import FundusClassifier
from models.predictor import Predictor
from models.training.adapter import AdapterConfig, TrainingDivergedError
from models.training.cli import app
from models.training.data import DataError
from models.training.export import export_classifier
from models.training.extractor import bundle_extractor
from models.training.loss_curves import curve_svg, read_curves, smoothed
from models.training.new_camera import Answers, in_words, outcome_warnings
from models.training.publish import NewCamera, add_adapter
from models.training.recipes import fit_adapter
from models.training.style_distance import StyleDistance, StyleDistances, sample, style_distances
from models.training.usable import Style, read_style, style_warnings

SIZE = 64
TINY = AdapterConfig(scale=2, crop=32, steps=2, batch=1, checkpoint_every=1)
OPTIONS = ["--scale", "2", "--crop", "32", "--steps", "4", "--batch", "1", "--checkpoint-every", "2"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.load(write_bundle_with_extractor(tmp_path / "source", lived_trunk()))


def silent(_stage: str, _step: int, _steps: int, _terms: dict[str, float]) -> None:
    """No progress shown."""


def eyes(folder: Path, seeds: range, *, darker: int = 1, height: int = 136) -> Path:
    """Drawn eyes; a height under 160 cuts their discs."""
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        picture = draw(Drawing(width=200, height=height, radius=80, seed=seed)) // darker
        assert cv2.imwrite(str(folder / f"E{seed:02d}.png"), picture[:, :, ::-1])
    return folder


def style(folder: Path) -> Style:
    return read_style(folder, SIZE, stage="x", progress=silent, minimum=1)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# The feature extractor


@pytest.mark.slow
def test_the_extractor_of_a_bundle_is_the_trunk_that_was_exported(tmp_path: Path) -> None:
    # Given a classifier whose trunk has lived, exported as every bundle is
    folder, trunk = write_tiny_bundle(tmp_path / "bundle"), lived_trunk(3)
    network = FundusClassifier(SIZE)
    network.trunk = trunk
    manifest = Bundle.load(folder).manifest
    export_classifier(network.eval(), folder / "classifier.onnx", np.zeros((1, SIZE, SIZE, 4), np.uint8))
    # When its trunk is read back from the sealed bundle
    found = bundle_extractor(seal_bundle(folder, manifest))
    # Then it computes the same lesions and the same features, and other pictures give others
    contrast = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for ours, theirs in zip(found(contrast), trunk(contrast), strict=True):
            assert float((ours - theirs).abs().max()) < 1e-4
            assert float(theirs.std()) > 1e-2


def test_a_bundle_without_an_extractor_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--classifier-run"):
        bundle_extractor(Bundle.load(write_tiny_bundle(tmp_path / "tiny")))


def test_the_folded_constants_are_read_back(bundle: Bundle) -> None:
    contrast, trunk = torch.randn(1, 3, 32, 32), lived_trunk()
    with torch.inference_mode():
        assert torch.allclose(bundle_extractor(bundle)(contrast)[1], trunk(contrast)[1], atol=1e-5)


# Folders


def test_files_that_cannot_train_are_left_out_and_named(tmp_path: Path) -> None:
    # Given three photographs, a sheet of paper, and a file that is no picture
    folder = eyes(tmp_path / "new", range(3))
    cv2.imwrite(str(folder / "paper.png"), np.full((90, 120, 3), 230, np.uint8))
    (folder / "broken.jpg").write_text("junk")
    told: list[int] = []
    # When
    found = read_style(
        folder, SIZE, stage="x", progress=lambda _n, step, _s, _t: told.append(step), minimum=3
    )
    # Then
    assert found.names == ("E00.png", "E01.png", "E02.png")
    assert found.pictures.shape == (3, SIZE, SIZE, 4)
    assert {(each.name, each.reason) for each in found.skipped} == {
        ("broken.jpg", "unreadable"),
        ("paper.png", "no field of view"),
    }
    assert np.allclose(found.diameters, 160, rtol=0.03)
    assert told == [1, 2, 3, 4, 5]
    # And one more is asked for than there is
    with pytest.raises(DataError, match=r"3 usable photographs of 5 files; at least 4.*paper\.png"):
        read_style(folder, SIZE, stage="x", progress=silent, minimum=4)


def test_only_the_first_names_are_said(tmp_path: Path) -> None:
    folder = eyes(tmp_path / "new", range(1))
    for number in range(13):
        (folder / f"b{number:02d}.jpg").write_text("junk")
    with pytest.raises(DataError, match=r"unreadable in 13: b00\.jpg.* b09\.jpg and 3 more"):
        read_style(folder, SIZE, stage="x", progress=silent, minimum=2)


def test_folders_that_differ_in_field_or_share_eyes_are_said(tmp_path: Path) -> None:
    # Given whole discs of the new camera, and cut ones of the labelled camera with two of the same eyes
    first = style(eyes(tmp_path / "first", range(4), height=170))
    second = style(eyes(tmp_path / "second", range(2, 6), height=120))
    # When
    said = " ".join(style_warnings(first, second, SIZE))
    # Then
    assert "Only 4 photographs of the new camera" in said
    assert "The fields differ" in said
    assert "2 photographs of the new camera may show the same eye" in said
    assert "(E02.png and E02.png, E03.png and E03.png)" in said
    assert "enlarged" in " ".join(style_warnings(first, second, 512))
    # And between folders that are alike and share nobody, only their size is said
    other = style(eyes(tmp_path / "other", range(10, 14), height=170))
    assert all("are recommended" in line for line in style_warnings(first, other, SIZE))


# Distance


def test_distances_fall_when_an_adapter_brings_the_colours_back(tmp_path: Path) -> None:
    # Given a camera of half the brightness, and an adapter that doubles it
    first = style(eyes(tmp_path / "first", range(4), darker=2)).pictures
    second = style(eyes(tmp_path / "second", range(4, 8))).pictures
    adapted = first.copy()
    adapted[..., :3] = np.minimum(first[..., :3].astype(int) * 2, 255)
    # When
    found = style_distances(first, adapted, second, lived_trunk(), silent)
    # Then
    assert found.before.colour > 0.2
    assert found.after.colour < 0.05
    assert found.before.sharpness == pytest.approx(np.log(2), abs=0.25)
    assert found.after.features < found.before.features
    # And a style is at no distance from itself
    same = style_distances(second, second, second, lived_trunk(), silent)
    assert (same.before.colour, same.before.sharpness, same.before.features) == pytest.approx(
        (0, 0, 0), abs=1e-3
    )


def distances(before: float, after: float, within: float) -> StyleDistances:
    return StyleDistances(*(StyleDistance(each, each, each) for each in (before, after, within)))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.9, 0.22, "hardly more is left"),
        (0.9, 0.5, "A part is left"),
        (0.9, 0.85, "not expected to help"),
        (0.25, 0.2, "hardly more than two groups of people"),
    ],
)
def test_a_distance_is_said_in_words(before: float, after: float, said: str) -> None:
    assert said in in_words(distances(before, after, 0.2))


def test_an_adapter_that_makes_it_worse_is_warned_about() -> None:
    answers = {
        name: Answers(share, 0.5) for name, share in (("before", 0.9), ("after", 0.6), ("labelled", 1.0))
    }
    said = list(outcome_warnings(distances(0.5, 0.9, 0.2), answers))
    assert [line.split()[2] for line in said[:2]] == ["took", "took"]
    assert "only 60% of the adapted photographs gradable" in said[2]
    assert not list(outcome_warnings(distances(0.5, 0.2, 0.2), {**answers, "after": Answers(0.99, 0.5)}))


def test_a_sample_is_spread_over_the_folder() -> None:
    pictures = np.arange(101, dtype=np.uint8).reshape(101, 1, 1, 1)
    assert sample(pictures, 3).ravel().tolist() == [0, 50, 100]
    assert len(sample(pictures[:2], 40)) == 2


# Bundle


def graph(folder: Path, step: int) -> Path:
    save(tiny_adapter(SIZE, step), folder / f"g{step}.onnx")
    return folder / f"g{step}.onnx"


def test_a_copy_of_a_bundle_gets_the_adapter_and_the_source_stays(bundle: Bundle, tmp_path: Path) -> None:
    # Given
    before = content(bundle.folder)
    place = NewCamera(bundle, "simulated-mine")
    # When
    made = add_adapter(place, graph(tmp_path, 5), {"seed": 1}, "Trained on nothing.", tmp_path / "copy")
    # Then the copy is a bundle of its own name, version and card, and the source is untouched
    assert content(bundle.folder) == before
    assert made.manifest.id == "tiny+simulated-mine"
    assert made.manifest.version.startswith("1.0.0+")
    assert sorted(made.manifest.adapters) == ["simulated-blue", "simulated-mine"]
    assert made.manifest.adapters["simulated-mine"].figures == {"seed": 1}
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert card.startswith("# Tiny")
    assert card.endswith("## Added adapter: simulated-mine\n\nTrained on nothing.\n")
    # And the same again leaves the same bundle, while another adapter makes another version
    again = add_adapter(place, graph(tmp_path, 5), {"seed": 1}, "Trained on nothing.", tmp_path / "copy")
    assert again.digest == made.digest
    other = add_adapter(place, graph(tmp_path, 6), {"seed": 1}, "Trained on nothing.", tmp_path / "copy")
    assert other.manifest.version != made.manifest.version
    assert not (tmp_path / "copy.partial").exists()


def test_replacing_an_adapter_drops_what_was_measured_on_the_old_one(bundle: Bundle, tmp_path: Path) -> None:
    # Given a bundle to which this camera was added before
    first = add_adapter(NewCamera(bundle, "simulated-mine"), graph(tmp_path, 5), {}, "Old.", tmp_path / "a")
    with pytest.raises(DataError, match="--replace"):
        NewCamera(first, "simulated-mine")
    # When it is replaced
    place = NewCamera(first, "simulated-mine", replace=True)
    made = add_adapter(place, graph(tmp_path, 9), {"new": True}, "New.", tmp_path / "b")
    # Then the card has one section for it, and id and version have grown no tail
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert card.count("## Added adapter") == 1
    assert "Old." not in card
    assert "It replaces an adapter of the same camera" in card
    assert made.manifest.id == "tiny+simulated-mine"
    assert made.manifest.version.count("+") == 1
    assert made.manifest.adapters["simulated-mine"].figures == {"new": True}


@pytest.mark.parametrize(
    ("camera", "bundle_id", "said"),
    [
        ("simulated-blue", "", "--replace"),
        ("kowa-vx-10", "", "needs no adapter"),
        ("My Camera", "", "lower-case words"),
        ("simulated-mine", "no spaces", "--bundle-id"),
        ("-".join(["simulated"] * 7), "", "--bundle-id"),
    ],
)
def test_what_cannot_be_added_is_refused_before_training(
    bundle: Bundle, camera: str, bundle_id: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        NewCamera(bundle, camera, bundle_id)


# Curves


def test_curves_take_the_last_of_repeated_steps_and_leave_out_other_stages(tmp_path: Path) -> None:
    rows = [("a", 1, 0.9), ("a", 2, 0.8), ("b", 1, 7.0), ("a", 2, 0.5)]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"stage": s, "step": n, "cycle": v}) for s, n, v in rows))
    steps, values = read_curves(log, "a")["cycle"]
    assert (steps.tolist(), values.tolist()) == ([1, 2], [0.9, 0.5])
    assert read_curves(tmp_path / "none.jsonl", "a") == {}
    assert curve_svg("cycle", (steps, values)).count("<polyline") == 2


def test_a_running_mean_keeps_constants_and_averages_over_a_fortieth() -> None:
    assert smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    assert smoothed(np.tile([0.0, 1.0], 40))[1:-1] == pytest.approx(np.full(78, 0.5))


# The whole


@pytest.mark.slow
def test_one_command_makes_a_bundle_that_the_worker_uses(bundle: Bundle, tmp_path: Path) -> None:
    # Given photographs of a darker camera, one of them broken
    first, second = eyes(tmp_path / "first", range(4), darker=2), eyes(tmp_path / "second", range(4, 8))
    (first / "broken.jpg").write_text("junk")
    before, out = content(bundle.folder), tmp_path / "run"
    command = ["adapter", "--bundle", str(bundle.folder), "--first", str(first), "--second", str(second)]
    command += ["--camera", "simulated-mine", "--out", str(out), "--minimum-photographs", "4", *OPTIONS]
    # When
    answer = CliRunner().invoke(app, [*command, "--threads", "1"])
    # Then there is a bundle that the worker takes, the source is as it was, and the warnings are said
    assert answer.exit_code == 0, answer.output
    assert content(bundle.folder) == before
    assert "broken.jpg" in answer.output
    verified = run("bundle", "verify", out / "bundle")
    assert (verified.status, "intact" in verified.words) == (0, True)
    made = Bundle.load(out / "bundle")
    figures = made.manifest.adapters["simulated-mine"].figures
    assert figures["held_out_labelled_figures"] == "none"
    assert figures["photographs"] == {"first_style": 4, "second_style": 4, "left_out": 1}
    assert set(figures["style_distance"]) == {"before", "after", "within"}  # type: ignore[arg-type]  # JSON
    assert (figures["steps"], figures["seed"]) == (4, 0)
    card = (out / "bundle" / "MODEL_CARD.md").read_text()
    assert "Trained without labels on 4 photographs" in " ".join(card.split())
    assert "Not measured on labelled photographs" in card
    # And one image goes through that adapter, and comes out as through the graph of the run
    picture = style(first).pictures[0]
    (found,) = Predictor(made, engine="onnx", threads=1).predict([picture], ["simulated-mine"], True)
    assert found.adapted is not None
    assert found.adapted.shape == picture.shape
    assert (found.adapted[..., 3] == picture[..., 3]).all()
    # And the report stands alone and says what matters
    report = (out / "report.html").read_text()
    for said in (
        "simulated-mine",
        "unreadable in 1: broken.jpg",
        "<polyline",
        "fundus-train evaluate",
        "data:image",
    ):
        assert said in report
    assert 'src="http' not in report
    assert "$" not in report.replace("${", "")
    # And another camera may not go on in this folder
    command[command.index("simulated-mine")] = "simulated-other"
    refused = CliRunner().invoke(app, [*command, "--threads", "1"])
    assert refused.exit_code == 1
    assert "camera: simulated-mine, now simulated-other" in " ".join(refused.output.split())


def test_a_training_that_fails_leaves_a_report_and_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    first, second = eyes(tmp_path / "first", range(3), darker=2), eyes(tmp_path / "second", range(4, 7))
    config = AdapterConfig(scale=2, crop=32, steps=6, batch=1, learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match="not finite"):
        fit_adapter(
            first,
            second,
            camera="simulated-mine",
            out=tmp_path / "run",
            config=config,
            progress=silent,
            place=NewCamera(bundle, "simulated-mine"),
            minimum=3,
        )
    report = (tmp_path / "run" / "report.html").read_text()
    assert "There is no adapter: not finite" in report
    assert not (tmp_path / "run" / "bundle").exists()


def test_the_command_wants_one_source_of_features_and_enough_photographs(
    bundle: Bundle, tmp_path: Path
) -> None:
    first, second = eyes(tmp_path / "first", range(3)), eyes(tmp_path / "second", range(4, 7))
    command = ["adapter", "--first", str(first), "--second", str(second), "--camera", "simulated-mine"]
    command += ["--out", str(tmp_path / "run")]
    answer = CliRunner().invoke(app, command)
    assert (answer.exit_code, "--classifier-run" in answer.output) == (2, True)
    answer = CliRunner().invoke(app, [*command, "--bundle", str(bundle.folder)])
    assert answer.exit_code == 1
    assert "3 usable photographs of 3 files; at least 20 are needed" in " ".join(answer.output.split())


def test_there_must_be_a_feature_extractor(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no feature extractor"):
        fit_adapter(tmp_path, tmp_path, camera="a", out=tmp_path, config=TINY, progress=silent)
