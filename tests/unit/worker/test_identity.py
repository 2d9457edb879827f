from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.errors import IdentityKeyError
from worker.identity import Identity


def test_a_pseudonym_follows_from_key_and_what_it_stands_for() -> None:
    one, other = Identity(b"k" * 16), Identity(b"l" * 16)
    assert one.pseudonym("A") == one.pseudonym(" A ")
    assert one.issuer_pseudonym("A") == one.issuer_pseudonym("A ")
    names = {
        one.pseudonym("A"),
        one.pseudonym(""),
        one.issuer_pseudonym("A"),
        one.header_key("A"),
        other.pseudonym("A"),
    }
    assert len(names) == 5
    assert all(name is not None and len(name) == 64 for name in names)


def test_an_issuer_that_is_not_stated_has_none() -> None:
    assert Identity(b"k" * 16).issuer_pseudonym(" ") is None


def test_a_key_is_made_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "identity.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Identity.from_file(path, create=True), range(8)))
    assert len({each.pseudonym("A") for each in made}) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["identity.key"]


def test_a_key_that_cannot_be_used_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    with pytest.raises(IdentityKeyError, match="head -c 32"):
        Identity.from_file(path, create=False)
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(IdentityKeyError, match="shorter than 16"):
        Identity.from_file(path, create=True)
    path.write_bytes(b"k" * 32)
    path.chmod(0o644)
    with pytest.raises(IdentityKeyError, match="chmod 600"):
        Identity.from_file(path, create=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IdentityKeyError):
        Identity.from_file(tmp_path / "file" / "identity.key", create=True)
