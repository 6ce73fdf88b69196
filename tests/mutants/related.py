"""Which tests are asked about a mutant: those nearest to the mutated file first.

A mutant counts as a survivor when none of these fails, so the figures are a lower bound of what the whole tier kills.
"""

from __future__ import annotations

from pathlib import Path

from tests.mutants.mutant import ROOT, Mutant

# By the longest prefix of the mutated file; folders are run whole, in this order, until a test fails.
RELATED = {
    "kdlosses/": ("tests/test_*.py", "tests/losses", "tests/backends", "tests/distributed"),
    "kdlosses/backends/": ("tests/backends", "tests/losses", "tests/test_*.py"),
    "kdlosses/tiles/": ("tests/backends", "tests/losses", "tests/test_*.py"),
    "kdlosses/distributed/": ("tests/distributed", "tests/test_*.py"),
    "kdlosses/integrations/": ("tests/integrations",),
    "harness/": ("tests/harness",),
}


def targets(mutant: Mutant, root: Path = ROOT) -> list[str]:
    """Paths for pytest: the mirrored ones, then the rest of its family."""
    prefix = max((key for key in RELATED if mutant.file.startswith(key)), key=len)
    patterns = [*_mirrored(mutant.file), *RELATED[prefix]]
    found = [path for pattern in patterns for path in sorted(root.glob(pattern))]
    return list(dict.fromkeys(str(path.relative_to(root)) for path in found))


def _mirrored(file: str) -> list[str]:
    """tests/harness/data/test_order*.py of harness/data/order.py, then its folder, then the folder above."""
    path = Path("tests") / Path(file).relative_to("kdlosses" if file.startswith("kdlosses/") else ".")
    folders = [folder for folder in path.parents if len(folder.parts) > 2]
    return [f"{path.parent}/test_{path.stem}*.py", *(str(folder) for folder in folders)]
