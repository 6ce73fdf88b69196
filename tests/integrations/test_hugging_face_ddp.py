"""Two processes under torchrun train what one trains with the whole batch: parameters of student and loss, and logs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from kdlosses.integrations.hugging_face import distillation_loss
from tests.integrations import hf_jobs
from tests.integrations.hf_jobs import BATCH, EVALUATED, JOBS, Result
from tests.integrations.hf_models import Pairs, stacked
from tests.integrations.scripts import ROOT, start

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, Result]]:
    """The results of both processes."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", "2"]
    start([*torchrun, "-m", hf_jobs.__name__, folder], ROOT)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> dict[str, Result]:
    AcceleratorState._reset_state(reset_partial_state=True)
    return hf_jobs.carry_out(tmp_path_factory.mktemp("one"))


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        # The gradients of k_proj.bias are 0 but for rounding, which AdamW blows up to 1e-12.
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


def test_two_processes_train_what_one_trains(one, two):
    """One test, so that only one worker of a test run starts processes."""
    for job in JOBS:
        for results in two:
            assert_same(results[job]["state"], one[job]["state"])
    for job in set(JOBS) - {"own loop"}:
        assert_logged_the_same(job, one, two)
    assert_resumed_bit_for_bit(two)
    assert_last_evaluation_batch_is_filled_up(one, two)


def assert_logged_the_same(job: str, one: dict[str, Result], two: list[dict[str, Result]]) -> None:
    timing = ("runtime", "per_second", "preparation_time")
    for results in two:
        for found, wanted in zip(results[job]["logs"], one[job]["logs"], strict=True):
            assert found == pytest.approx(wanted, rel=1e-4)  # the terms are counted in float32
        found, wanted = (
            {name: value for name, value in of[job]["even"].items() if not any(word in name for word in timing)}
            for of in (results, one)
        )
        assert found == pytest.approx(wanted, rel=1e-5)


def assert_resumed_bit_for_bit(two: list[dict[str, Result]]) -> None:
    for results in two:
        for again, whole in (
            (results["resumed"]["state"], results["adamw"]["state"]),
            (results["own loop"]["again"], results["own loop"]["state"]),
        ):
            assert all(torch.equal(value, whole[name]) for name, value in again.items())


def assert_last_evaluation_batch_is_filled_up(one: dict[str, Result], two: list[dict[str, Result]]) -> None:
    """On several processes the first pairs fill up the last batch: there they are negatives, but do not count."""
    student, teacher, loss = hf_jobs._models(hf_jobs.clip)
    state = one["adamw"]["state"]
    student.load_state_dict({name: v for name, v in state.items() if not name.startswith("loss.")}, strict=False)
    loss.load_state_dict({name.removeprefix("loss."): v for name, v in state.items() if name.startswith("loss.")})
    data, rest = Pairs(EVALUATED, torch.float64), EVALUATED - BATCH

    def value(rows: list[int]) -> float:
        with torch.no_grad():
            return float(
                sum(distillation_loss(student.eval(), teacher, loss, stacked([data[i] for i in rows])).values())
            )

    first, last = list(range(BATCH)), list(range(BATCH, EVALUATED))
    small = (BATCH * value(first) + rest * value(last)) / EVALUATED
    filled = (BATCH * value(first) + rest * value(last + first[: BATCH - rest])) / EVALUATED
    assert one["adamw"]["uneven"]["eval_loss"] == pytest.approx(small, rel=1e-9)
    assert all(results["adamw"]["uneven"]["eval_loss"] == pytest.approx(filled, rel=1e-9) for results in two)
