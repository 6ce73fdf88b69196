"""The triton backend as a whole: tiles of any size, 16-bit inputs, what it refuses, what it is compiled with."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

import kdlosses
from harness.bench import __file__ as bench
from kdlosses import backends
from kdlosses.backends.triton import Backend, tuning
from kdlosses.relation import Pairs, Relation
from kdlosses.requests import CrossEntropy, SigmoidCrossEntropy, SoftCrossEntropy
from kdlosses.rows import rows_of
from tests.backends.agreement import assert_agrees, distance
from tests.backends.cases import Case
from tests.backends.subjects import Subject
from tests.backends.triton_problems import DEVICE
from tests.grid import grid
from tests.problems import Problem, seeded
from tests.running import Outcome, run
from tests.tolerance import assert_close

PAIRS = Problem(batch=20, student_dim=12, teacher_dim=20)
KERNELS = ("stats", "stats_teacher", "weights", "weights_teacher", "matmul", "second_stats", "second_weights")
KERNELS += ("sigmoid_sums", "sigmoid_sums_teacher", "sigmoid_weights", "sigmoid_weights_teacher")


def outcome(name: str, backend: backends.Backend, dtype: torch.dtype, problem: Problem = PAIRS) -> Outcome:
    loss = Case(name, problem).loss(backend, torch.float32).to(DEVICE)
    return run(loss, {key: value.to(DEVICE) for key, value in problem.inputs(dtype).items()})


def largest_distance(found: Outcome, wanted: Outcome) -> float:
    pairs = [(found.grads[key], gradient) for key, gradient in wanted.grads.items() if gradient is not None]
    return max(distance(got, gradient) for got, gradient in pairs)


@grid(name=["clip_kd", "gd", "sigmoid_kd"], size=[7, 16], slow=lambda name, **_: name != "sigmoid_kd")
def test_the_size_of_a_stored_tile_does_not_matter(name, size):
    found = outcome(name, backends.create("triton", tile_size=size), torch.float32)
    wanted = outcome(name, backends.create("dense"), torch.float32)
    assert_close(found.value, wanted.value)
    assert largest_distance(found, wanted) < 1e-5


def test_each_stored_tile_has_the_weights_of_its_own_rows():
    """Losses are means, to which all rows are alike."""
    generator = seeded(3)
    rows = [torch.randn(20, width, generator=generator).to(DEVICE) for width in (12, 12, 9, 9)]
    scale, bias = (torch.tensor(number, device=DEVICE) for number in (5.0, -2.0))
    leaves = [one.requires_grad_() for one in (*rows[:2], scale, bias)]
    sides = [rows_of(one, torch.float32) for one in rows]
    student, teacher = Pairs(*sides[:2], scale), Pairs(*sides[2:], scale.detach())
    requests = [
        SoftCrossEntropy(student.i2t, teacher.i2t),
        CrossEntropy(student.t2i),
        SigmoidCrossEntropy(student.i2t, bias),
        SigmoidCrossEntropy(student.i2t, bias, teacher.i2t, bias.detach()),
    ]
    assert_agrees(Subject(backends.create("triton", tile_size=8), DEVICE, torch.float32), requests, leaves)


@grid(name=["contrastive", "crd", "icl", "gd", "siglip", "sigmoid_kd"], dtype=[torch.bfloat16, torch.float16])
def test_sixteen_bit_inputs_cost_gradients_digits_and_values_none(name, dtype):
    """A stored tile in bfloat16 is off by 2^-9 (2^-8 in the interpreter, which cuts off); what is asked for is not."""
    problem = PAIRS.with_(teacher_dim=12)
    found, wanted = (outcome(name, backends.create(label), dtype, problem) for label in ("triton", "dense"))
    assert_close(found.value, wanted.value)
    assert largest_distance(found, wanted) < 2.0**-7
    assert all(found.grads[key].dtype == dtype for key in ("image_features", "text_features"))


@pytest.mark.parametrize("name", ["crd", "icl", pytest.param("gd", marks=pytest.mark.slow)])
def test_wide_embeddings(name):
    """Many steps of a product, of widths that are a power of two and that are none."""
    problem = Problem(batch=5, student_dim=200, teacher_dim=256)
    found, wanted = (outcome(name, backends.create(label), torch.float32, problem) for label in ("triton", "dense"))
    assert_close(found.value, wanted.value)
    assert largest_distance(found, wanted) < 1e-5


def test_a_computation_in_float64_is_refused_whatever_the_features_are():
    """The teacher's decide too, though this term does not read them."""
    inputs = PAIRS.inputs(torch.float32)
    inputs |= {key: value.double() for key, value in PAIRS.inputs(torch.float32).items() if key.startswith("dist_")}
    loss = kdlosses.CLIPKDLoss({"contrastive": 1}, backend="triton")
    with pytest.raises(ValueError, match=r"got torch.float32 for a computation in torch.float64; backend='chunked'"):
        loss(**{key: value.to(DEVICE) for key, value in inputs.items()})


def test_features_in_float64_are_refused():
    with pytest.raises(ValueError, match=r"computes in float32 .* got torch.float64 .* backend='chunked' takes any"):
        outcome("crd", backends.create("triton"), torch.float64)


def test_features_on_a_cpu_are_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    inputs = PAIRS.inputs(torch.float32)
    with pytest.raises(ValueError, match=r"needs features on a CUDA device, got cpu; .*backend='chunked'"):
        Case("crd", PAIRS).loss(Backend(), torch.float32)(**inputs)


def test_without_a_gpu_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "there is no CUDA device" in backends.available()["triton"]
    with pytest.raises(ValueError, match="backend='triton' cannot be used here: there is no CUDA device"):
        kdlosses.build("crd", backend="triton")


def test_rocm_is_no_cuda(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 4))
    assert "built for ROCm" in Backend.unavailable()


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"precision": "tf33"}, "precision 'tf33' is unknown; known: ieee, tf32; did you mean 'tf32'"),
        ({"tile_size": 0}, "tile_size must be a positive integer, got 0"),
        ({"tile_size": True}, "tile_size must be a positive integer, got True"),
    ],
)
def test_options_are_checked(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Backend(**options)


def test_options_are_shown():
    assert repr(Backend("tf32", 64)) == "triton(precision='tf32', tile_size=64)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_suits_many_rows_in_float32_on_a_gpu(dtype):
    rows = rows_of(torch.randn(5, 3, device=DEVICE, dtype=dtype), dtype)
    requests = [CrossEntropy(Relation(rows, rows, torch.ones((), device=DEVICE)))]
    possible = DEVICE == "cuda" and dtype == torch.float32
    assert [Backend().suits(requests, count) for count in (5, 6)] == [possible, False]


def test_the_table_of_tiles_is_complete_and_says_what_the_compiler_said():
    assert set(tuning.HOPPER) == {(kernel, kind) for kernel in KERNELS for kind in tuning.KINDS}
    inputs = {"half": "bfloat16", "tf32": "float32 tf32", "ieee": "float32 ieee"}
    with (Path(bench).parent / "results" / "triton_sm90.csv").open(newline="") as file:
        rows = {(row["kernel"], row["inputs"]): row for row in csv.DictReader(file)}
    for (kernel, kind), tile in tuning.HOPPER.items():
        row = rows[kernel, inputs[kind]]
        assert (row["kind"], row["tile"]) == (kind, f"{tile.BM}x{tile.BN}x{tile.BK}")
        assert [int(row[key]) for key in ("warps", "stages")] == [tile.num_warps, tile.num_stages]
        assert [int(row[key]) for key in ("registers", "spilled", "shared")] == [
            tile.registers,
            tile.spilled,
            tile.shared,
        ]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", tuning.KINDS)
def test_other_gpus_have_tiles_too(kernel, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    other = tuning.tile_for(kernel, kind, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert tuning.tile_for(kernel, kind, torch.device("cuda")) is tuning.HOPPER[kernel, kind]
    assert other.BM * other.BN <= 64 * 64
