"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as optim.lr=2e-3. Can be repeated."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Value of ${data_root} in the recipe (default: its paths.data_root)."),
]
