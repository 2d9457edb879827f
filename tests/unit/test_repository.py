from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from factories.repository import ROOT, project, tracked_files
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

MEGABYTE = 1_000_000
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json", ".sql", ".ini", ".mako", ""}
MACHINE_PATHS = re.compile(r"/(?:home|Users|root|work|workspace|mnt)/\w|/opt/\w+/|file://")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[A-Za-z0-9.+!]+)")


def text_files() -> Iterator[Path]:
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES and path.name != Path(__file__).name:
            yield path


def lock() -> dict[str, Version]:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pins = [PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(pins), "each line of the lock is a comment or an exact `name==version`"
    return {pin["name"]: Version(pin["version"]) for pin in pins if pin}


def requirements() -> list[Requirement]:
    table = project()
    groups = [table["dependencies"], *table["optional-dependencies"].values()]
    parsed = [Requirement(each) for group in groups for each in group]
    return [each for each in parsed if each.name != table["name"]]


def megabytes(paths: Iterator[Path]) -> float:
    return sum((ROOT / path).stat().st_size for path in paths) / MEGABYTE


def test_all_weights_together_stay_small() -> None:
    weights = (path for path in tracked_files() if path.suffix in {".onnx", ".pt", ".npz", ".bin"})

    assert megabytes(weights) <= 12


def test_all_images_together_stay_small() -> None:
    images = (path for path in tracked_files() if path.suffix in {".jpg", ".jpeg", ".png", ".dcm"})

    assert megabytes(images) <= 6


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path in text_files()
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1)
        if MACHINE_PATHS.search(line)
    ]

    assert found == []


def test_the_lock_names_no_host_and_no_hash() -> None:
    text = (ROOT / "deploy" / "constraints.txt").read_text()

    assert not re.search(r"://|--hash|--index|--find-links", text)


def test_the_lock_has_a_fitting_version_of_every_dependency() -> None:
    pins = lock()

    for requirement in requirements():
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not in deploy/constraints.txt"
        assert pinned in requirement.specifier, f"{requirement} does not allow the pinned {pinned}"


def test_what_is_installed_is_what_the_lock_says_down_to_the_last_dependency() -> None:
    pins = lock()
    waiting = [each for each in requirements() if installed(each)]
    seen: set[str] = set()

    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in seen:
            continue
        seen.add(name)
        found = Version(Version(metadata.version(name)).public)  # torch's CPU build is `2.13.0+cpu`
        assert name in pins, f"{name} is installed but not in deploy/constraints.txt"
        assert found == pins[name], (
            f"{name} {found} is installed, the lock says {pins[name]}: run `make setup`"
        )
        waiting += [each for each in map(Requirement, metadata.requires(name) or ()) if needed(each)]

    assert {"numpy", "pydicom", "sqlalchemy", "pytest"} <= seen


def needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def installed(requirement: Requirement) -> bool:
    """Extras (gpu, dashboard) need not be installed where the tests run; what is required always is."""
    try:
        metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_serving_needs_no_torch() -> None:
    assert not {Requirement(each).name for each in project()["dependencies"]} & {"torch", "onnx", "lightning"}


@pytest.mark.parametrize("said", ["make demo", "make test", "not a medical device", "CN111753908A"])
def test_the_first_screen_of_the_readme_says_it(said: str) -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:60])

    assert said in first_screen


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path in tracked_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text())
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]

    assert broken == []
