"""Write the corpus: `PYTHONPATH=.:tests python -m corpus --out DIR`, from the root of a clone."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from corpus.case import Case
from corpus.catalogue import CASES
from corpus.storescu import PROFILE, configuration

app = typer.Typer(add_completion=False)


@app.command()
def write(
    out: Annotated[Path, typer.Option(help="Folder for the files; made when it is not there.")],
    only: Annotated[str, typer.Option(help="Pattern of names, for instance 'charset-*'.")] = "*",
) -> None:
    """Write one DICOM file for each oddity of real senders, and how to send them all.

    What should become of each is in deploy/docs/inputs.md. The patients are made up, the photograph is from
    IDRiD (CC BY 4.0).
    """
    chosen = [case for case in CASES if fnmatch(case.name, only)]
    if not chosen:
        message = f"no case is called like {only!r}; see deploy/docs/inputs.md"
        raise typer.BadParameter(message, param_hint="--only")
    folders = {case.name: out / "raw" if case.dcmtk else out for case in chosen}
    paths = [path for case in chosen for path in write_files(case, folders[case.name])]
    plain = [path for path in paths if path.parent == out]
    (out / "storescu.cfg").write_text(configuration(plain))
    typer.echo(f"{len(plain)} files are in {out}; to send them:")
    typer.echo(f"  storescu -v -nh -xf {out}/storescu.cfg {PROFILE} -aec CALLED_AE HOST PORT {out}/*.dcm")
    if len(paths) > len(plain):
        typer.echo(f"{len(paths) - len(plain)} more, which DCMTK cannot send as they are, are in {out}/raw")


def write_files(case: Case, folder: Path) -> list[Path]:
    """The files of a case, written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in case.files().items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths


if __name__ == "__main__":
    app()
