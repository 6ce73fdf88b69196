"""Any list of requests, answered and differentiated as its definitions say, by every backend."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from tests.backends.agreement import assert_agrees
from tests.backends.programs import PROGRAMS, Program
from tests.backends.subjects import OF_TORCH, USABLE, Subject, subject


def assert_program(program: Program, tested: Subject) -> None:
    if tested.dtype == torch.float32:
        # A gradient of a gradient grows with the square of the scale: at 100 the table's absolute bound means nothing.
        program = replace(program, scale=min(program.scale, 14.3))
    requests, tensors = program.build(tested.dtype, tested.device)
    assert_agrees(tested, requests, tensors, program.used)


@pytest.mark.parametrize("label", OF_TORCH)
@settings(max_examples=40)
@given(program=PROGRAMS)
def test_answers_and_gradients_are_those_of_the_definitions(label, program):
    assert_program(program, subject(label))


@pytest.mark.slow
@pytest.mark.parametrize("label", sorted(set(USABLE) - set(OF_TORCH)))
@settings(max_examples=10)
@given(program=PROGRAMS)
def test_so_are_those_of_interpreted_kernels(label, program):
    assert_program(program, subject(label))
