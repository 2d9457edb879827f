"""What DCMTK's storescu has to be told to offer every file in its own transfer syntax."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom.filereader import read_file_meta_info

PROFILE = "Corpus"


def contexts(files: Iterable[Path]) -> list[tuple[str, str]]:
    """SOP class and transfer syntax of each file, each pair once, in order."""
    pairs: dict[tuple[str, str], None] = {}
    for path in files:
        meta = read_file_meta_info(path)
        pairs[str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)] = None
    return sorted(pairs)


def configuration(files: Iterable[Path]) -> str:
    """An association configuration for `storescu -xf` (DCMTK's asconfig.txt): one context for each pair."""
    pairs = contexts(files)
    syntaxes = {
        syntax: f"Syntax{number}" for number, syntax in enumerate(sorted({each for _, each in pairs}))
    }
    lines = ["[[TransferSyntaxes]]"]
    for syntax, name in syntaxes.items():
        lines += [f"[{name}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[Contexts]"]
    for number, (sop_class, syntax) in enumerate(pairs, start=1):
        lines.append(f"PresentationContext{number} = {sop_class}\\{syntaxes[syntax]}")
    return "\n".join([*lines, "[[Profiles]]", f"[{PROFILE}]", "PresentationContexts = Contexts"]) + "\n"
