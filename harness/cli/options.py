"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as optim.lr=2e-3. Can be repeated."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="What ${data_root} stands for in the recipe (default: its paths.data_root)."),
]
