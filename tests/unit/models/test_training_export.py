"""Exported graphs keep the bundle's contract and say what the networks say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from factories.fundus import Drawing, draw

from models.networks.classifier import FundusClassifier
from models.networks.generator import ResidualGenerator
from models.preprocess import prepare
from models.training.export import CLASSIFIER_OUTPUTS, PARITY, ParityError, check_parity, export_classifier
from models.training.recipes import export_run
from models.training.run import write_json

SIZE = 64


def eyes(count: int) -> np.ndarray:
    """Drawn eyes, uint8 (count, S, S, 4)."""
    return np.stack([prepare(draw(Drawing(seed=seed, lesions=5)), SIZE).tensor for seed in range(count)])


def test_the_classifier_graph(tmp_path: Path) -> None:
    # Given a classifier whose head and trunk answer differently to each picture
    torch.manual_seed(0)
    classifier = FundusClassifier(SIZE).eval()
    classifier.head.weight.copy_(torch.randn(classifier.head.weight.shape) * 0.1)
    path = tmp_path / "classifier.onnx"
    # When it is exported, then it differs from torch by less than a thousandth
    assert export_classifier(classifier, path, eyes(3)) <= PARITY
    # And any number of pictures can be asked, with answers that do not depend on their neighbours
    graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    together = graph.run(None, {"image": eyes(5)})
    alone = graph.run(None, {"image": eyes(5)[4:]})
    assert [output.name for output in graph.get_outputs()] == list(CLASSIFIER_OUTPUTS)
    assert [array.shape for array in together] == [(5, 4), (5, 1), (5, 4, 16, 16), (5, 2)]
    assert together[0][4:] == pytest.approx(alone[0], abs=1e-5)
    assert len(np.unique(together[0])) > 5
    # And another network is recognised as another
    classifier.head.cuts.add_(0.5)
    with pytest.raises(ParityError, match=r"classifier\.onnx"):
        check_parity(classifier, path, eyes(2))


def test_the_adapter_graph_of_a_run(tmp_path: Path) -> None:
    # Given a run folder with the checkpoint of an adapter
    torch.manual_seed(0)
    generator = ResidualGenerator(scale=2)
    torch.nn.init.normal_(generator.last.weight, 0.0, 0.1)
    torch.save({"average": generator.state_dict()}, tmp_path / "adapter-simulated-blue.pt")
    write_json(
        tmp_path / "config.json", {"size": SIZE, "adapter": {"residual": True, "form": "affine", "scale": 2}}
    )
    for seed in range(2):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), draw(Drawing(seed=seed))[:, :, ::-1])
    # When the run is exported
    ((path, difference),) = export_run(tmp_path, tmp_path / "graphs", tmp_path)
    # Then the graph says what the generator says, for any number of pictures, and leaves alpha alone
    assert path == tmp_path / "graphs" / "adapters" / "simulated-blue.onnx"
    assert difference <= PARITY
    graph = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (adapted,) = graph.run(["adapted"], {"image": eyes(3)})
    assert adapted.dtype == np.uint8
    assert adapted.shape == (3, SIZE, SIZE, 4)
    assert np.array_equal(adapted[..., 3], eyes(3)[..., 3])
    assert not np.array_equal(adapted, eyes(3))
