"""Write the corpus: `PYTHONPATH=.:tests python -m corpus --out DIR`, from the root of a clone."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
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
    out.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in CASES if fnmatch(case.name, only)]
    if not chosen:
        raise typer.BadParameter(f"no case is called like {only!r}; see deploy/docs/inputs.md", param_hint="--only")
    files = {name: content for case in chosen for name, content in case.files().items()}
    for name, content in files.items():
        (out / name).write_bytes(content)
    (out / "storescu.cfg").write_text(configuration(out / name for name in files))
    typer.echo(f"{len(files)} files of {len(chosen)} cases are in {out}; to send them all:")
    typer.echo(f"  storescu -v -nh -xf {out}/storescu.cfg {PROFILE} -aec CALLED_AE HOST PORT {out}/*.dcm")


if __name__ == "__main__":
    app()
