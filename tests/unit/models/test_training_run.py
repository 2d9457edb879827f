"""The run folder: what is written, what is refused, and what can be looked at."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.training.adapter import AdapterConfig
from models.training.config import load_config
from models.training.engine import Engine, EngineConfig
from models.training.progress import ProgressBars, ShowsPictures
from models.training.run import RunConflictError, open_run, read_json
from models.training.samples import GAIN, sheet, write_sheet
from models.training.watching import WatchConfig


@dataclass(frozen=True)
class Whole:
    """A recipe.

    Attributes:
        size: Side.
        adapter: Adapters.
    """

    size: int = 64
    adapter: AdapterConfig = field(default_factory=AdapterConfig)


def test_a_run_folder_says_how_it_was_made(tmp_path: Path) -> None:
    engine = Engine(EngineConfig(accelerator="cpu", precision="bf16-mixed"))
    config = AdapterConfig(steps=9, watch=WatchConfig(patience=2))
    open_run(tmp_path, config, "abc", engine)
    assert read_json(tmp_path / "config.json")["watch"]["patience"] == 2
    assert read_json(tmp_path / "data.json") == {"sha256": "abc"}
    found = read_json(tmp_path / "environment.json")
    assert found["torch"] == torch.__version__
    assert (found["precision"], found["accelerator"]) == ("bf16-mixed", "cpu")
    assert found["threads"] == str(torch.get_num_threads())
    # config.toml is a file for --config, which knows the table of the engine besides
    text = (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert 'precision = "bf16-mixed"' in text
    (tmp_path / "own.toml").write_text(text.partition("[engine]")[0], encoding="utf-8")
    assert load_config(AdapterConfig, tmp_path / "own.toml") == config


def test_a_second_start_with_other_settings_names_what_differs(tmp_path: Path) -> None:
    config = Whole()
    open_run(tmp_path, config, "abc")
    open_run(tmp_path, config, "abc")
    before = (tmp_path / "config.json").read_bytes()
    other = replace(config, adapter=AdapterConfig(steps=7, watch=WatchConfig(patience=5)))
    with pytest.raises(RunConflictError) as raised:
        open_run(tmp_path, other, "abc")
    steps = AdapterConfig.steps
    assert f"adapter.steps: {steps}, now 7; adapter.watch.patience: 0, now 5" in str(raised.value)
    assert "size" not in str(raised.value)
    with pytest.raises(
        RunConflictError, match=r"data\.json is of a run with other data \(sha256: abc, now def\)"
    ):
        open_run(tmp_path, config, "def")
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_does_not_continue_with_other_cameras(tmp_path: Path) -> None:
    open_run(tmp_path, Whole(), "abc", cameras={"blue": {"haze": 0.1}})
    open_run(tmp_path, Whole(), "abc", cameras={"blue": {"haze": 0.1}})

    with pytest.raises(
        RunConflictError, match=r"cameras\.json is of a run with other cameras \(blue\.haze: 0\.1, now 0\.2\)"
    ):
        open_run(tmp_path, Whole(), "abc", cameras={"blue": {"haze": 0.2}})


def test_a_run_continued_elsewhere_keeps_both_environments(tmp_path: Path) -> None:
    open_run(tmp_path, Whole(), "abc")
    content = read_json(tmp_path / "environment.json")
    (tmp_path / "environment.json").write_text(json.dumps({**content, "torch": "1.0"}))
    open_run(tmp_path, Whole(), "abc")
    open_run(tmp_path, Whole(), "abc")
    assert read_json(tmp_path / "environment-2.json") == content
    assert not (tmp_path / "environment-3.json").exists()


def test_measurements_go_to_the_log_and_to_tensorboard(tmp_path: Path) -> None:
    with ProgressBars(tmp_path, Console(quiet=True)) as progress:
        assert isinstance(progress, ShowsPictures)
        for step in (1, 2):
            progress("adapter-x", step, 2, {"cycle": 0.5 * step})
        progress.picture("adapter-x", 2, np.full((8, 8, 3), 200, np.uint8))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"stage": "adapter-x", "step": 1, "cycle": 0.5},
        {"stage": "adapter-x", "step": 2, "cycle": 1.0},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("adapter-x/cycle")] == [(1, 0.5), (2, 1.0)]
    picture = cv2.imdecode(np.frombuffer(events.Images("adapter-x")[0].encoded_image_string, np.uint8), 1)
    assert picture is not None
    assert (picture == 200).all()


def test_a_sheet_shows_the_residual_about_mid_grey(tmp_path: Path) -> None:
    # Given two pictures, of which a translation brightens the second by 0.1
    rgb, mask = torch.full((2, 3, 32, 32), 0.3), torch.ones(2, 1, 32, 32)
    translated = rgb + torch.tensor([0.0, 0.1])[:, None, None, None]
    # When a sheet is drawn and written
    file = tmp_path / "samples" / "s.png"
    write_sheet(file, sheet((rgb, mask), translated, (torch.full_like(rgb, 0.9), mask), "a title"))
    picture = cv2.imread(str(file))
    assert picture is not None
    # Then the third row is grey where nothing changed, and lighter by the gain where it did
    rows = [22 + row * 220 + 22 + 96 for row in range(4)]
    columns = [6 + 96, 6 + 198 + 96]
    values = [[int(picture[row, column, 0]) for column in columns] for row in rows]
    assert values[0] == [76, 76]  # 0.3
    assert values[1] == [76, 102]  # 0.3 and 0.4
    assert values[2] == [128, round(255 * (0.5 + GAIN * 0.1))]
    assert values[3] == [230, 230]  # 0.9
