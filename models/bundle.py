"""A model bundle: one folder with a manifest, a model card, the classifier and the cameras' adapters.

::

    reference/
      manifest.json     what it is, where it came from, SHA-256 of every other file
      MODEL_CARD.md     what it is for and what it is not for
      classifier.onnx   image uint8 (N, S, S, 4) -> cumulative, quality, activation
      adapters/<camera>.onnx   image uint8 (N, S, S, 4) -> adapted, same shape, alpha untouched

Nothing is read from a bundle before every file in it has been checked against the manifest, and a file that
the manifest does not list is refused: what was validated is what runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import BundleChecksumError, BundleFilesError, BundleNotFoundError
from models.manifest import CLASSIFIER_FILE, MANIFEST_FILE, Manifest, parse_manifest, to_json

BUNDLES_FOLDER: Final = Path(__file__).parent / "bundles"
"""Where the bundles that come with the program lie (package data)."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_COPY_AGAIN: Final = "Copy the bundle again from its source."


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        folder: where it lies.
        manifest: its manifest.
        digest: SHA-256 (hex) over the bytes of ``manifest.json``; as that lists the SHA-256 of every other
            file, it identifies the bundle's whole content.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def load(cls, source: str | Path) -> Bundle:
        """Open a bundle and check every file in it.

        Args:
            source: the name of a bundle that comes with the program (``reference``), or a folder: a
                ``Path``, or text with a slash in it (``./mine``, ``/srv/bundles/mine``). A bare name never
                means a folder.

        Raises:
            BundleNotFoundError: no such bundle.
            ManifestError: the manifest is damaged or not of this schema.
            BundleFilesError: a file is missing, or one is there that the manifest does not list.
            BundleChecksumError: a file's content is not the one that was sealed.
        """
        folder = _folder(source)
        file = folder / MANIFEST_FILE
        if not file.is_file():
            raise BundleFilesError(file, "the bundle has no manifest", _COPY_AGAIN)
        data = file.read_bytes()
        bundle = cls(folder, parse_manifest(data, file), hashlib.sha256(data).hexdigest())
        bundle.verify()
        return bundle

    @property
    def classifier_path(self) -> Path:
        """Path of the classifier's graph."""
        return self.folder / CLASSIFIER_FILE

    @property
    def adapter_paths(self) -> dict[str, Path]:
        """Paths of the adapters' graphs, by camera key."""
        return {camera: self.folder / entry.file for camera, entry in self.manifest.adapters.items()}

    def verify(self) -> None:
        """Check that the folder holds the manifest's files, unchanged, and no other.

        Raises:
            BundleFilesError: a file is missing, or one is there that the manifest does not list.
            BundleChecksumError: a file's content is not the one that was sealed.
        """
        listed = self.manifest.files
        _require(self.folder, self.manifest.required_files, set(listed), "is not listed in the manifest")
        present = set(_files(self.folder)) - {MANIFEST_FILE}
        _require(self.folder, listed, present, "is missing")
        _refuse_strangers(self.folder, present - set(listed), "is not listed in the manifest")
        for name, expected in listed.items():
            found = _sha256(self.folder / name)
            if found != expected:
                problem = f"SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…"
                raise BundleChecksumError(self.folder / name, problem, _COPY_AGAIN)

    def summary(self) -> str:
        """What an administrator wants to know of the bundle, as lines of text without the figures."""
        manifest = self.manifest
        adapters = ", ".join(sorted(manifest.adapters)) or "none"
        rows = {
            "bundle": f"{manifest.id} {manifest.version}",
            "folder": str(self.folder),
            "digest": self.digest,
            "trained from": f"commit {manifest.commit}, data {manifest.data_fingerprint}",
            "labelled camera": manifest.training_camera,
            "adapters": adapters,
            "grades": ", ".join(f"{grade} {label}" for grade, label in enumerate(manifest.labels)),
            "thresholds": ", ".join(f"≥{k} at {t:g}" for k, t in enumerate(manifest.thresholds, 1)),
            "referable": f"P(grade ≥ 2) at least {manifest.thresholds[1]:g}",
            "minimum quality": f"{manifest.minimum_quality:g}",
            "activation maps": ", ".join(manifest.activation_labels),
            "input": f"{manifest.size} by {manifest.size} pixels, opset {manifest.opset}",
            "files": f"{len(manifest.files)}, {self.size_bytes / 1e6:.1f} MB",
        }
        return "\n".join(f"{name + ':':<17} {value}" for name, value in rows.items())

    @property
    def size_bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum((self.folder / name).stat().st_size for name in self.manifest.files)


def installed_bundles() -> tuple[str, ...]:
    """Names of the bundles that come with the program."""
    return tuple(sorted(manifest.parent.name for manifest in BUNDLES_FOLDER.glob(f"*/{MANIFEST_FILE}")))


def seal_bundle(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest of a finished folder, with the SHA-256 of every file in it, and open the bundle.

    The manifest is written last and atomically, so that a folder with a manifest is a complete bundle.
    Sealing an unchanged folder again writes the same bytes.

    Args:
        folder: holds the model card, the classifier, the adapters, and whatever else belongs to the bundle.
        manifest: everything but ``files``, which is computed (a value given there is replaced).

    Raises:
        BundleFilesError: a file that the bundle must have is missing, or there is a hidden file, a link, or a
            graph that the manifest does not name.
    """
    present = set(_files(folder)) - {MANIFEST_FILE}
    _require(folder, manifest.required_files, present, "is missing")
    strangers = {name for name in present - manifest.required_files if name.endswith(".onnx")}
    _refuse_strangers(folder, strangers, "is a graph that the manifest does not name")
    files = {name: _sha256(folder / name) for name in sorted(present)}
    data = to_json(dataclasses.replace(manifest, files=files))
    temporary = folder / f".{MANIFEST_FILE}.{os.getpid()}"
    temporary.write_bytes(data)
    temporary.replace(folder / MANIFEST_FILE)
    return Bundle.load(folder)


def _folder(source: str | Path) -> Path:
    if isinstance(source, str) and _NAME.fullmatch(source):
        folder = BUNDLES_FOLDER / source
        if not (folder / MANIFEST_FILE).is_file():
            names = ", ".join(installed_bundles()) or "none"
            remedy = f"Bundles that come with the program: {names}. Write a folder with a slash: ./{source}"
            raise BundleNotFoundError(Path(source), "no bundle of that name", remedy)
        return folder
    folder = Path(source)
    if not folder.is_dir():
        raise BundleNotFoundError(
            folder, "no such folder", "Set `bundle` to the folder that holds manifest.json."
        )
    return folder


def _files(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, relative, with forward slashes.

    Raises:
        BundleFilesError: a hidden file or a link, which checksums would not fix in place.
    """
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleFilesError(path, "is a link", "Put the file itself there.")
        if path.name.startswith("."):
            raise BundleFilesError(path, "is a hidden file", "Remove it from the bundle.")
        if not path.is_dir():
            yield name


def _require(folder: Path, wanted: frozenset[str] | dict[str, str], present: set[str], problem: str) -> None:
    for name in sorted(set(wanted) - present):
        raise BundleFilesError(folder / name, problem, _COPY_AGAIN)


def _refuse_strangers(folder: Path, strangers: set[str], problem: str) -> None:
    for name in sorted(strangers):
        raise BundleFilesError(folder / name, problem, "Remove it from the bundle.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
