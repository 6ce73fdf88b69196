"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from harness.paths import expand_home

# Types of what names files and folders; help shows their names.


def path(value: str | os.PathLike[str]) -> Path:
    """One path; of ./~x, a folder that is called so, the ./ would be lost."""
    found = Path(expand_home(os.fspath(value)))
    return found.absolute() if found.parts[:1] and found.parts[0].startswith("~") else found


def text(value: str) -> str:
    """A path or a name."""
    return expand_home(value)


Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as optim.lr=2e-3. Can be repeated."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", parser=path, help="Value of ${data_root} in the recipe (default: its paths.data_root)."
    ),
]
