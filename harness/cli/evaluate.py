"""clipkd eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from harness.config import EvalSet


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run folder, an open_clip folder such as RUN/export, shipped:NAME, or an open_clip model name."
        ),
    ],
    set_path: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder in clip_benchmark's webdataset layout; repeatable (default: the sets of the run's recipe)."
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip model: a tag such as laion2b_s34b_b79k, or a file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or texts embedded at a time.")] = 256,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for one NAME.json a set. (default: print only)")] = None,
) -> None:
    """Measure zero-shot accuracy or retrieval recall on held-out sets."""
    sets = [described(path) for path in set_path] if set_path else sets_of_run(model)
    from harness.cli.table import print_metrics
    from harness.evaluate import evaluate as run
    from harness.models import load_trained, pick_device

    loaded = load_trained(model, pretrained)
    print_metrics(run(loaded, sets, batch_size=batch_size, device=pick_device(device), out=out))


def described(path: Path) -> "EvalSet":
    """Name a set after its folder; clip_benchmark's dataset_type.txt in it says what kind it is.

    Raises:
        UserError: when the folder is missing or holds no such set.
    """
    from harness.config import EvalSet
    from harness.errors import UserError

    if not path.is_dir():
        raise UserError(f"--set-path {path}: no such folder")
    marker = path / "dataset_type.txt"
    kind = marker.read_text().strip().lower() if marker.is_file() else "classification"
    if kind not in ("classification", "retrieval"):
        raise UserError(f"{marker} says {kind!r}; supported are classification and retrieval")
    if kind == "classification" and not (path / "classnames.txt").is_file():
        raise UserError(
            f"--set-path {path}: not in clip_benchmark's webdataset layout; expected dataset_type.txt with "
            "`retrieval`, or classnames.txt for a zero-shot set"
        )
    return EvalSet(name=path.resolve().name, kind="retrieval" if kind == "retrieval" else "zeroshot", path=str(path))


def sets_of_run(model: str) -> "list[EvalSet]":
    """The sets that the run's own recipe was measured on.

    Raises:
        UserError: when `model` is no run, or its recipe has no sets.
    """
    from harness.config import load_recipe
    from harness.errors import UserError

    recipe = Path(model.removeprefix("run:")) / "recipe.yaml"
    if not recipe.is_file():
        raise UserError(f"{model} is no run folder with sets of its own; say what to measure it on with --set-path DIR")
    sets = list(load_recipe(recipe).eval.sets)
    if not sets:
        raise UserError(f"{recipe} lists no eval.sets; say what to measure the model on with --set-path DIR")
    return sets
