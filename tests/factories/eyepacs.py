"""A small tree of the EyePACS layout: drawn eyes whose grade shows, by two or three cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from factories.fundus import Drawing, Picture, draw

from models.cameras import CAMERAS, simulate


@dataclass(frozen=True)
class EyepacsTree:
    """Where the files of the tree are."""

    images: Path
    train_labels: Path
    test_labels: Path
    cameras: Path

    @property
    def labels(self) -> list[Path]:
        """Both labels files."""
        return [self.train_labels, self.test_labels]


def write_tree(folder: Path, patients: dict[str, int]) -> EyepacsTree:
    """Write photographs of both eyes of some patients of each camera code, labels and camera codes.

    Every second patient lies in ``train`` and is in ``trainLabels.csv``, the others in ``test``. The pictures
    of camera 2 are by the simulated camera ``blue``. Half of the cameras file's names have a suffix.
    """
    rows: dict[str, list[str]] = {"train": [], "test": []}
    codes = ["image_name,camera"]
    number = 0
    for code, count in patients.items():
        for _ in range(count):
            number += 1
            part = "train" if number % 2 else "test"
            (folder / part).mkdir(parents=True, exist_ok=True)
            for eye, side in enumerate(("left", "right")):
                name, grade = f"{number}_{side}", (2 * number + eye) % 5
                write_eye(folder / part / f"{name}.jpeg", grade, seed=2 * number + eye, camera=code)
                usage = ",Public" if part == "test" else ""
                rows[part].append(f"{name},{grade}{usage}")
                codes.append(f"{name}{'.jpeg' if eye else ''},{code}")
    tree = EyepacsTree(
        folder, folder / "trainLabels.csv", folder / "retinopathy_solution.csv", folder / "cameras.csv"
    )
    tree.train_labels.write_text("\n".join(["image,level", *rows["train"]]) + "\n")
    tree.test_labels.write_text("\n".join(["image,level,Usage", *rows["test"]]) + "\n")
    tree.cameras.write_text("\n".join(codes) + "\n")
    return tree


def write_eye(path: Path, grade: int, *, seed: int, camera: str) -> None:
    """Write one drawn eye with as many large dark spots as its grade demands."""
    picture = _spotted(draw(Drawing(width=200, height=136, radius=80, seed=seed)), grade, seed)
    if camera == "2":
        picture = simulate(picture, CAMERAS["blue"], seed)
    if not cv2.imwrite(str(path), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise OSError(f"{path} cannot be written")


def _spotted(picture: Picture, grade: int, seed: int) -> Picture:
    rng = np.random.default_rng(seed)
    spotted = np.ascontiguousarray(picture)
    for _ in range(4 * grade):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(10, 50)
        place = (round(100 + reach * np.cos(angle)), round(68 + reach * np.sin(angle)))
        cv2.circle(spotted, place, 4, (70, 20, 8), -1)
    return spotted
