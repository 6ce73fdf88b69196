"""Compilation of every Triton kernel for compute capability 9.0, without a GPU: registers, spills, shared memory.

``python -m harness.bench.triton_compile OUT.csv`` compiles each launch of the triton backend for each kind of product,
with the tiles of the backend's table, and writes one row each. Nothing is run, so nothing is measured.
"""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from harness.errors import UserError
from harness.files import write_text

_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


def main(out: Path) -> None:
    """Compile everything, show each row, and write them all."""
    rows = []
    for row in compile_all():
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())


def compile_all(inputs: str = "", tiles: Mapping[tuple[str, str], Any] | None = None) -> Iterator[dict[str, Any]]:
    """One row for each launch and each product, or those whose name begins with ``inputs``.

    Args:
        inputs: the beginning of a name in ``triton_cases.PRODUCTS``.
        tiles: by kernel and kind of product; the backend's for Hopper by default.

    Raises:
        UserError: where triton is missing, or imported as an interpreter.
    """
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise UserError("TRITON_INTERPRET is set, so kernels are interpreted and not compiled; unset it and try again")
    try:
        import triton
    except ImportError as error:
        raise UserError("the package triton is not installed; PyTorch's CUDA wheels for Linux bring it") from error
    from harness.bench.triton_cases import LAUNCHES, PRODUCTS
    from kdlosses.backends.triton import tuning

    triton.runtime.driver.set_active(_NoGpu())
    tiles, used = tuning.HOPPER if tiles is None else tiles, []

    def tile_for(kernel: str, kind: str, device: object) -> Any:
        used.append((kind, tiles[kernel, kind]))
        return used[-1][1]

    for name, launch in LAUNCHES.items():
        for label, product in PRODUCTS.items():
            if not label.startswith(inputs):
                continue
            with mock.patch.object(tuning, "tile_for", tile_for), _compiling() as compiled:
                launch(product)
            kind, tile = used.pop()
            yield {
                "kernel": name,
                "inputs": label,
                "kind": kind,
                "tile": f"{tile.BM}x{tile.BN}x{tile.BK}",
                "warps": tile.num_warps,
                "stages": tile.num_stages,
                **_usage(compiled[0]),
                "triton": triton.__version__,
            }


class _NoGpu:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _compiling() -> Iterator[list[Any]]:
    """Kernels that are launched meanwhile are compiled, not run; yields them."""
    from triton.runtime.jit import JITFunction

    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *arguments: Any, **keywords: Any) -> None:
        compiled.append(run(kernel, *arguments, **{**keywords, "warmup": True}))

    with mock.patch.object(JITFunction, "run", compile_only):
        yield compiled


def _usage(kernel: Any) -> dict[str, int]:
    """Registers and spilled bytes of each thread, as the compiled file says, and the shared memory of a program."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    usage = _USAGE.search(text.stdout + text.stderr)
    assert usage is not None, text.stdout
    registers, stack = usage.groups()
    return {"registers": int(registers), "spilled": int(stack), "shared": kernel.metadata.shared}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
