"""Hypothesis strategies for distillation problems, dtypes and masking ratios."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tests.problems import Problem

WIDTHS = st.integers(2, 6)
SCALES = st.sampled_from([1.0, 14.3, 100.0]) | st.floats(1.0, 100.0)
RATIOS = st.floats(0.0, 0.95)  # shares of patches to hide
FLOAT_DTYPES = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])


@st.composite
def problems(draw: st.DrawFn, same_width: bool = False, max_batch: int = 9) -> Problem:
    """Batches of 1 to 9 pairs, equal or mixed widths, with or without duplicated rows, scales from 1 to 100."""
    width = draw(WIDTHS)
    return Problem(
        batch=draw(st.integers(1, max_batch)),
        student_dim=width,
        teacher_dim=width if same_width else draw(st.just(width) | WIDTHS),
        scale=draw(SCALES),
        teacher_scale=draw(SCALES),
        duplicates=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )
