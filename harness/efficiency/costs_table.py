"""Costs of models as a table of at most 80 columns."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_costs(costs: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Two rows a model, one a tower, and below how they were measured."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold", max_width=24)
    table.add_column("tower")
    for text in ("params", "GFLOPs", "latency", "per second"):
        table.add_column(text, justify="right")
    for label, cost in costs.items():
        for tower in ("image", "text"):
            table.add_row(label if tower == "image" else "", tower, *_cells(cost[tower]))
        table.add_section()
    console.print(table)
    about = next(iter(costs.values()))
    threads = f", {about['threads']} threads" if about["threads"] else ""
    console.print(
        f"GFLOPs of one sample, a multiply-add is 2; latency at batch 1, throughput at batch {about['batch_size']}; "
        f"{about['precision']}, {about['device']}{threads}, torch {about['torch']}",
        style="dim",
        highlight=False,
    )


def _cells(tower: Mapping[str, Any]) -> list[str]:
    return [
        f"{tower['parameters'] / 1e6:.2f} M",
        f"{tower['flops'] / 1e9:.3g}",
        f"{tower['latency_ms']:.3g} ms",
        f"{tower['per_second']:,.0f}",
    ]
