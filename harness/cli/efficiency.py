"""clipkd efficiency."""

from typing import Annotated, Literal

import typer

from harness.cli import options


def efficiency(
    models: Annotated[
        list[str],
        typer.Argument(
            parser=options.text,
            metavar="MODEL...",
            help="A run folder, an open_clip folder, shipped:NAME, or an open_clip model name.",
        ),
    ],
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size for throughput; latency is at batch size 1.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Maximum number of timed calls; the median is reported.")] = 20,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="Autocast precision; fp32 = no autocast.")
    ] = "fp32",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure parameters, FLOPs, latency and throughput of image and text towers.

    For a run folder the results are also written to RUN/efficiency.json.
    """
    import json

    from harness.efficiency import measure, write
    from harness.efficiency.costs_table import print_costs
    from harness.evaluate.eval_models import run_folder
    from harness.models import load_model, pick_device

    costs = {}
    for spec in models:
        loaded = load_model(spec)
        costs[spec] = measure(
            loaded, device=pick_device(device), batch_size=batch_size, repeats=repeats, precision=precision
        )
        run = run_folder(spec)
        if run is not None:
            typer.echo(f"wrote {write(run, costs[spec])}", err=True)
    if as_json:
        typer.echo(json.dumps(costs, indent=2))
    else:
        print_costs(costs)
