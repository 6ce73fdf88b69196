"""KDClipLoss among several processes: the trainer's seeds are refused, and mended by the line that says so."""

from __future__ import annotations

import pytest
import torch

from tests.distributed import clip_kd
from tests.distributed.cases import joined
from tests.running import assert_same

pytestmark = pytest.mark.distributed


def test_parameters_of_seeds_that_differ_are_refused_with_the_cure(results):
    first, second = results(2)["clip-kd-as-it-is"]
    assert first == second
    assert "KDClipLoss's parameter cross_logit_scale" not in first
    assert "KDClipLoss's parameter visual_proj.weight on rank 1 differs from rank 0's" in first
    assert "kdlosses.share_parameters(loss)" in first


def test_shared_they_compute_what_one_process_does(results):
    both = results(2)["clip-kd-shared"]
    for outcome in both:  # share_parameters has averaged them already
        assert all(torch.equal(g, both[0].grads[k]) for k, g in outcome.grads.items() if k.startswith("param."))
    assert_same(joined(both), clip_kd.alone())


def test_a_world_size_that_is_wrong_is_named(results):
    for told in results(2)["clip-kd-other-size"]:
        assert "world_size=1 but is called among 2 processes; pass world_size=2" in told


def test_within_its_process_it_needs_no_other(results):
    expected = clip_kd.alone().value
    assert all(torch.allclose(value, expected, rtol=1e-12) for value in results(2)["clip-kd-within"])
