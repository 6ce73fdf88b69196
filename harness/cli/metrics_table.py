"""Tables on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_metrics(results: Mapping[str, Mapping[str, float]]) -> None:
    """One line for each metric (percent) of each evaluation set, in the order given."""
    if not results:
        return
    table = Table("set", "metric")
    table.add_column("%", justify="right")
    for name, metrics in results.items():
        for metric, value in metrics.items():
            table.add_row(name, metric, f"{value:.1f}")
    Console().print(table)
