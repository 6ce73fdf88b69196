"""Banks over several processes: every queue is that of one process with all rows."""

from __future__ import annotations

import pytest
import torch

from tests.distributed import bank
from tests.distributed.cases import joined
from tests.running import assert_same

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("job", ["bank-queue", "bank-queue-chunked"])
def test_a_queue_is_everybodys(job, results):
    found, (expected, state) = results(2)[job], bank.queue(0, 1)
    for step, wanted in enumerate(expected):
        assert_same(joined([outcomes[step] for outcomes, _ in found]), wanted)
    for _, own in found:
        assert all(torch.equal(own[key], value) for key, value in state.items())


def test_targets_are_of_each_process(results):
    assert_same(joined(results(2)["bank-by-number"]), bank.by_number(0, 1))


def test_keys_that_differ_are_refused_everywhere(results):
    for message in results(2)["bank-different"]:
        assert "BankLoss's buffer term_state.bank.image_keys on rank 1 differs from rank 0's; set the same" in message


def test_a_queue_that_one_process_does_not_fill_is_refused(results):
    for message in results(2)["bank-modes"]:
        assert "training mode differs between processes: True on rank 0; False on rank 1" in message


def test_sharing_parameters_shares_the_keys(results):
    for keys in results(2)["bank-shared"]:
        assert keys.eq(1).all()
