"""clipkd eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.cli import eval_options

if TYPE_CHECKING:
    from harness.evaluate.find_sets import SetSearch

SOME_MISSING = 3  # exit code: evaluated, but a requested set is missing


def evaluate(
    models: eval_options.Models,
    suite: eval_options.Suite = None,
    dataset: eval_options.Datasets = None,
    dataset_path: eval_options.DatasetPaths = None,
    data: eval_options.Data = Path("data"),
    protocol: eval_options.Protocol = "all",
    image_formats: eval_options.ImageFormats = None,
    stock_decoding: eval_options.StockDecoding = False,
    pretrained: eval_options.Pretrained = None,
    teacher: eval_options.Teachers = None,
    with_teacher: eval_options.WithTeacher = False,
    efficiency: eval_options.Efficiency = False,
    batch_size: eval_options.BatchSize = 256,
    workers: eval_options.Workers = 0,
    device: eval_options.Device = "auto",
    out: eval_options.Out = None,
    overwrite: eval_options.Overwrite = False,
    as_json: eval_options.AsJson = False,
) -> None:
    """Evaluate zero-shot accuracy and retrieval recall on held-out sets.

    Exit code 3 when a requested set is missing; the others are evaluated.
    """
    from harness.evaluate.eval_models import eval_models
    from harness.logs import keep_stdout_clean
    from harness.models import pick_device

    chosen = eval_models(models, pretrained, teacher or [], with_teacher=with_teacher)
    found = _sets(models, suite, dataset or [], dataset_path or [], data, protocol)
    found = _decoded(found, image_formats, stock=stock_decoding)
    if as_json:
        keep_stdout_clean()
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": pick_device(device),
        "workers": workers,
        "overwrite": overwrite,
    }
    results, costs = {}, {}
    for candidate in chosen:
        loaded = candidate.load()
        results[candidate.label] = _evaluate(loaded, found, candidate.store(out), label=candidate.label, **options)
        if efficiency:
            costs[candidate.label] = _efficiency(loaded, options["device"], candidate.run)
    _show(results, costs, found, as_json=as_json)
    if found.missing:
        raise typer.Exit(SOME_MISSING)


def _sets(
    models: list[str],
    suite: str | None,
    datasets: list[str],
    folders: list[Path],
    root: Path,
    protocol: str,
) -> "SetSearch":
    """Find the requested sets, by default those of the first run's recipe.

    Raises:
        UserError: none are requested and no model is a run; or all of them are missing.
    """
    from harness.errors import UserError
    from harness.evaluate.find_sets import (
        SetSearch,
        apply_protocol,
        find_dataset,
        find_suite,
        merge_searches,
        set_from_folder,
    )
    from harness.evaluate.suites import load_suite

    parts = [find_suite(load_suite(suite).sets, root)] if suite else []
    parts += [find_dataset(name, root) for name in datasets]
    parts += [SetSearch((set_from_folder(path),)) for path in folders]
    found = apply_protocol(merge_searches(parts or [_sets_of_run(models)]), protocol)
    for item in found.missing:
        typer.echo(str(item), err=True)
    if not found.sets:
        raise UserError(
            f"none of the {len(found.missing)} sets was found, so there is nothing to evaluate; see the lines above"
        )
    return found


def _decoded(found: "SetSearch", formats: str | None, *, stock: bool) -> "SetSearch":
    """The sets, with images of these formats, decoded in this way.

    Raises:
        UserError: a format is unknown.
    """
    from harness.cli.pairs import listed_formats
    from harness.evaluate.find_sets import apply_formats, apply_stock_decoding

    wanted = None if formats is None else listed_formats(formats)
    return apply_stock_decoding(apply_formats(found, wanted), stock=stock)


def _sets_of_run(models: list[str]) -> "SetSearch":
    from harness.errors import UserError
    from harness.evaluate.eval_models import recipe_of, run_folder
    from harness.evaluate.find_sets import find_recipe_sets

    run = next((folder for folder in map(run_folder, models) if folder is not None), None)
    named = "--suite, --dataset or --dataset-path DIR"
    if run is None:
        raise UserError(f"{models[0]} is not a run folder with evaluation sets of its own; choose sets with {named}")
    config = recipe_of(run).eval
    if not config.sets and config.suite is None:
        raise UserError(f"{run / 'recipe.yaml'} lists no eval.sets; choose sets with {named}")
    # Missing sets are reported whatever eval.missing says, which is about training.
    return find_recipe_sets(config.model_copy(update={"missing": "skip", "best": None, "online": ()}))


def _evaluate(loaded: Any, found: "SetSearch", store: Any, **options: Any) -> dict[str, dict[str, float]]:
    from harness.evaluate.cached import evaluate_cached

    return evaluate_cached(loaded, found.sets, store, **options)


def _efficiency(loaded: Any, device: Any, run: Path | None) -> dict[str, Any]:
    from harness.efficiency import measure, write

    cost = measure(loaded, device=device)
    if run is not None:
        write(run, cost)
    return cost


def _show(results: dict[str, Any], costs: dict[str, Any], found: "SetSearch", *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        content = {"metrics": results, "missing": [asdict(item) for item in found.missing]}
        typer.echo(json.dumps({**content, "efficiency": costs} if costs else content, indent=2))
        return
    from harness.evaluate.results_table import print_results

    print_results(results)
    if costs:
        from harness.efficiency.costs_table import print_costs

        print_costs(costs)
    if found.missing:
        names = ", ".join(item.name for item in found.missing)
        typer.echo(f"{len(found.missing)} of {len(found.missing) + len(found.sets)} sets are missing: {names}")
