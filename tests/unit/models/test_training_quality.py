"""The quality head: what it sees, its gate, its minimum, and that a killed run keeps its pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from factories.fundus import Drawing, draw
from torch import Tensor, nn

from models.networks.quality import PLANES, QualityNetwork
from models.training.quality import (
    GRADABLE,
    QualityConfig,
    QualitySet,
    fit_gate,
    kept_set,
    minimum_quality,
    quality_figures,
    quality_scores,
    quality_set,
    train_quality,
)

CONFIG = QualityConfig(negatives=3, translated=1, steps=40, batch=12)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> QualitySet:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), draw(Drawing(seed=seed, lesions=4))[..., ::-1])
    torch.set_num_threads(1)
    return quality_set(sorted(folder.glob("*.png")), 128, CONFIG, 0, lambda *_: None)


def test_a_set_holds_each_photograph_mirrored_its_translations_and_negatives(pictures: QualitySet) -> None:
    assert pictures.planes.shape == (8 * 6, PLANES, 32, 32)
    assert pictures.kinds is not None
    assert pictures.gradable.sum() == 24
    assert set(pictures.kinds[pictures.gradable]) == {GRADABLE}
    assert GRADABLE not in set(pictures.kinds[~pictures.gradable])


def test_a_killed_run_finds_its_pictures_again(pictures: QualitySet, tmp_path: Path) -> None:
    def fail() -> QualitySet:
        raise AssertionError("drawn again")

    first = kept_set(tmp_path / "set.npz", lambda: pictures)
    again = kept_set(tmp_path / "set.npz", fail)
    for kept in (first, again):
        assert np.array_equal(kept.planes, pictures.planes)
        assert np.array_equal(kept.gradable, pictures.gradable)
    assert again.kinds is not None
    assert pictures.kinds is not None
    assert again.kinds.tolist() == pictures.kinds.tolist()


def test_training_tells_drawn_eyes_from_negatives_and_counts_by_kind(pictures: QualitySet) -> None:
    network = train_quality(pictures, CONFIG, lambda *_: None)
    minimum = minimum_quality(network, pictures, CONFIG)
    figures = quality_figures(network, pictures, minimum)
    assert figures["auc"] > 0.9
    assert figures["gradable_refused"] == 0.0
    # Then the kinds' shares, weighted by their counts, make up the total
    assert pictures.kinds is not None
    kinds = pictures.kinds[~pictures.gradable]
    total = np.mean([figures[f"accepted_{kind}"] for kind in kinds])
    assert total == pytest.approx(figures["ungradable_accepted"])


def test_the_gate_closes_on_what_resembles_no_positive(pictures: QualitySet) -> None:
    torch.manual_seed(0)
    network = QualityNetwork().eval()
    positives = pictures.planes[pictures.gradable]
    # Given a gate that is not fitted, everything is familiar
    found = network.pooled(torch.from_numpy(positives.astype(np.float32)))
    assert torch.all(network.gate(found[0], found[2]) > 0.99)
    # When it is fitted to the positives
    fit_gate(network, positives, 2.0)
    with torch.inference_mode():
        familiar = _gate(network, torch.from_numpy(positives.astype(np.float32)))
        strange = _gate(network, 5.0 * torch.rand(4, PLANES, 32, 32))
    # Then they pass, and noise far beyond them does not
    assert float(familiar.median()) > 0.9
    assert float(strange.max()) < 0.01


def _gate(network: QualityNetwork, planes: Tensor) -> Tensor:
    mean, _, overall = network.pooled(planes)
    return network.gate(mean, overall)


class _Scores(QualityNetwork):
    """A head whose quality is the first value of its planes."""

    def quality(self, planes: Tensor) -> Tensor:
        return planes[:, :1, 0, 0]


def _scored(values: list[float], gradable: int) -> QualitySet:
    planes = np.zeros((len(values), PLANES, 1, 1), np.float16)
    planes[:, 0, 0, 0] = values
    return QualitySet(planes, np.arange(len(values)) < gradable)


def test_the_minimum_leaves_out_the_allowed_share_and_a_margin() -> None:
    # Given 11 positives of which a tenth may be refused: the quantile is the second lowest; one logit less
    known = _scored([0.1, 0.5, *[0.9] * 9, 0.0, 0.0], 11)
    config = QualityConfig(refused=0.1, margin=1.0)
    assert minimum_quality(_Scores(), known, config) == pytest.approx(0.269, abs=1e-3)
    # Then it refuses the one below it, and no negative gets through
    figures = quality_figures(_Scores(), known, 0.269)
    assert figures["gradable_refused"] == pytest.approx(1 / 11)
    assert (figures["ungradable_accepted"], figures["auc"]) == (0.0, 1.0)


def test_the_minimum_is_bounded() -> None:
    assert minimum_quality(_Scores(), _scored([1.0, 1.0, 0.0], 2), QualityConfig()) == 0.8
    assert minimum_quality(_Scores(), _scored([0.001, 0.001, 0.0], 2), QualityConfig()) == 0.05


@pytest.mark.parametrize("size", [32, 64, 96, 160])
def test_any_multiple_of_32_gives_a_probability(size: int) -> None:
    network = QualityNetwork().eval()
    rgb, mask = torch.rand(2, 3, size, size), torch.ones(2, 1, size, size)
    with torch.inference_mode():
        quality = network(rgb, mask)
    assert quality.shape == (2, 1)
    assert ((quality >= 0) & (quality <= 1)).all()


def test_what_lies_outside_the_field_changes_nothing() -> None:
    torch.manual_seed(0)
    network = QualityNetwork().eval()
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 8:56, 8:56] = 1.0
    rgb = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        plain, other = network(rgb, mask), network(torch.where(mask > 0, rgb, 1.0 - rgb), mask)
    assert torch.equal(plain, other)


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quality = QualityNetwork()

    def forward(self, rgb: Tensor, mask: Tensor) -> Tensor:
        probability: Tensor = self.quality(rgb, mask)
        return probability


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_graph_says_what_the_network_says(pictures: QualitySet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = _Head().eval()
    fit_gate(head.quality, pictures.planes, 2.0)
    rgb, mask = torch.rand(2, 3, 128, 128), torch.ones(2, 1, 128, 128)
    path = tmp_path / "quality.onnx"
    torch.onnx.export(
        head, (rgb, mask), str(path), input_names=["rgb", "mask"], opset_version=18, dynamo=True
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"rgb": rgb.numpy(), "mask": mask.numpy()})
    with torch.inference_mode():
        ours = head(rgb, mask)
    assert np.abs(np.asarray(theirs) - ours.numpy()).max() < 1e-3


def test_scores_keep_their_order(pictures: QualitySet) -> None:
    network = QualityNetwork().eval()
    whole = quality_scores(network, pictures)
    single = quality_scores(network, QualitySet(pictures.planes[7:8], pictures.gradable[7:8]))
    assert whole[7] == pytest.approx(single[0], abs=1e-6)
