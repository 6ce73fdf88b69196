"""N processes with B/N rows each compute what one computes for all B rows: values, and gradients after DDP's mean."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.backends.agreement import distance
from tests.backends.cases import EVERY
from tests.distributed.cases import (
    FAST,
    HALF,
    MIXED,
    SAME,
    SPLITS,
    Split,
    captioned,
    joined,
    matryoshka,
    multi_teacher,
    of_captions,
    of_teachers,
    part,
)
from tests.distributed.jobs import GROUPED, group_ids
from tests.distributed.refusals import PLAIN
from tests.distributed.siglip import OpenClips
from tests.distributed.siglip import inputs as siglip_inputs
from tests.running import Averaged, Outcome, assert_same, assert_teacher_untouched, build, run
from tests.test_teacher_dropping import drawn, dropping, oracle
from tests.tolerance import assert_close

pytestmark = [pytest.mark.distributed, pytest.mark.filterwarnings("ignore:mfd is combined")]


@cache
def in_one_process(split: Split) -> Outcome:
    """The dense backend on the whole batch; it is held against the oracles elsewhere."""
    return run(split.loss("dense"), split.inputs())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SPLITS]
)
def test_every_loss(name, results):
    split = SPLITS[name]
    found = joined(results(split.size, name not in FAST)[name])
    assert_same(found, in_one_process(Split(split.case, 1, dtype=split.dtype)), split.dtype)
    if split.case.name != "contrastive":
        assert any(grad is not None for grad in found.grads.values())


@pytest.mark.parametrize("name", HALF)
def test_features_of_sixteen_bits(name, results):
    """Values as float32 has them; gradients are rounded to sixteen bits once a process."""
    split = HALF[name]
    found, expected = joined(results(split.size)[name]), in_one_process(Split(split.case, 1, dtype=split.dtype))
    assert_close(found.value, expected.value, torch.float32)
    assert_teacher_untouched(found)
    for key, wanted in expected.grads.items():
        if wanted is not None:
            assert found.grads[key].dtype == wanted.dtype
            assert distance(found.grads[key], wanted) < (0.01 if wanted.ndim == 2 else 1e-3)


def test_gradients_are_summed_in_more_than_sixteen_bits_on_the_way(results):
    """1 + 3 * 2^-9 rounds to 1 + 2^-7; summed one by one in bfloat16 it stays 1."""
    for gradient in results(4)["sixteen-bit-sums"]:
        assert torch.equal(gradient, torch.full((1, 8), 1 + 2.0**-7, dtype=torch.bfloat16))


def test_rows_of_any_dtypes_travel_together(results):
    for half, double in results(2)["mixed-dtypes"]:
        assert torch.equal(half, torch.tensor([[1.0] * 3, [2.0] * 3], dtype=torch.bfloat16))
        assert torch.equal(double, torch.tensor([[0.1] * 2, [1.1] * 2], dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 4])
def test_a_loss_wrapped_in_ddp(size, results):
    outcomes = results(size)["module-in-ddp"]
    parameters = [key for key in outcomes[0].grads if key.startswith("param.")]
    for one in outcomes:
        assert all(torch.equal(one.grads[key], outcomes[0].grads[key]) for key in parameters)
    assert_same(joined(outcomes), run(build("clip_kd", MIXED), MIXED.inputs()))


@pytest.mark.parametrize("size", [2, 4])
def test_siglip_is_open_clips_over_as_many_processes(size, results):
    """And both are what either computes in one; ours over several processes is held against one above."""
    theirs, ours = joined(results(size)["open-clips-siglip"]), run(build("siglip", SAME), siglip_inputs())
    assert_same(theirs, ours)
    assert_same(run(OpenClips(), siglip_inputs()), ours)


@pytest.mark.slow
def test_compiled(results):
    assert_same(joined(results(2, True)["compiled"]), run(build("clip_kd", MIXED), MIXED.inputs()))


def test_terms_sum_to_the_scalar_on_every_rank(results):
    whole = build("clip_kd", MIXED)(**MIXED.inputs(), output_dict=True)
    for found in results(2)["terms"]:
        assert torch.equal(found["scalar"], found["silent"])
        assert_close(found["scalar"], sum(whole.values()).detach())
        assert {key: value for key, value in found.items() if key.endswith("_loss")}.keys() == whole.keys()
        for key, value in whole.items():
            assert_close(found[key].detach(), value.detach(), message=key)


def test_a_term_differentiated_alone(results):
    inputs = MIXED.inputs()
    image = inputs["image_features"].requires_grad_()
    build("clip_kd", MIXED)(**inputs, output_dict=True)["crd_loss"].backward()
    assert_close(torch.cat(results(2)["one-term"]) / 2, image.grad)


def test_each_pairs_value_is_on_the_process_that_has_it(results):
    found = results(2)["by-pair"]
    loss, inputs = build("clip_kd", MIXED, weights=dict(EVERY), reduction="none"), MIXED.inputs()
    assert_close(torch.cat([values for values, _ in found]), loss(**inputs).detach())
    expected = run(Averaged(loss), inputs)
    assert_same(joined([outcome for _, outcome in found]), Outcome(torch.zeros(()), expected.grads))


@pytest.mark.parametrize("size", [2, 4])
def test_groups_of_pairs_on_several_processes(size, results):
    loss = build("clip_kd", MIXED, weights=GROUPED, options={"contrastive": {"label_smoothing": 0.2}})
    assert_same(joined(results(size)["grouped"]), run(loss, MIXED.inputs() | group_ids()))


def test_no_group_keeps_a_loss_within_its_process(results):
    for rank, outcome in enumerate(results(2)["local"]):
        assert_same(outcome, run(build("clip_kd", MIXED), part(MIXED.inputs(), rank, 2)))


@pytest.mark.parametrize("size", [2, 4])
def test_groups_of_processes(size, results):
    for rank, (pair, single) in enumerate(results(size)["groups"]):
        inputs = part(MIXED.inputs(), rank // 2, size // 2)
        assert_close(pair, build("clip_kd", MIXED)(**inputs).detach())
        assert_close(single, build("clip_kd", MIXED)(**part(MIXED.inputs(), rank, size)).detach())


def test_unusual_inputs_give_the_usual_value(results):
    whole = build("clip_kd", MIXED, dtype=torch.float32)(**MIXED.inputs(torch.float32)).detach()
    for values in results(2)["unusual"]:
        for value in values:
            assert_close(value, whole)


@pytest.mark.parametrize("size", [2, 4])
def test_several_teachers(size, results):
    found = joined(results(size)["several-teachers-paper"])
    assert_same(found, run(multi_teacher(), of_teachers()))


def test_several_teachers_as_released(results):
    loss = multi_teacher(variant="released", weights=dict.fromkeys(PLAIN, 1.0))
    assert_same(joined(results(2)["several-teachers-released"]), run(loss, of_teachers()))


def test_prefixes(results):
    assert_same(joined(results(2)["prefixes"]), run(matryoshka(build("clip_kd", MIXED)), MIXED.inputs()))


def test_several_captions(results):
    assert_same(joined(results(2)["captions"]), run(captioned(), of_captions()))


def test_targets_are_standardized_by_all_processes_rows(results):
    loss = build("fd", MIXED, standardize="running")
    for seed in (11, 12):
        loss(**MIXED.with_(seed=seed).inputs())
    assert_same(joined(results(2)["standardized"]), run(loss, MIXED.inputs()))


def test_each_process_drops_teachers_by_draws_of_its_own(results):
    draws = [torch.cat(both) for both in zip(drawn(0, 4), drawn(1, 4), strict=True)]
    assert_same(joined(results(2)["dropping"]), oracle(dropping(), of_teachers(), draws, 0.5))


def test_everything_is_gathered_at_once(results):
    """Forward: one small exchange, one gathering for all terms, one mean; backward: one sum. GD sums its gradients."""
    ask, gather, mean, back = "all_gather", "all_gather", "all_reduce", "reduce_scatter"
    plain, nothing = [ask, gather, mean, back], [ask, mean]
    gd = [ask, gather, "reduce_scatter", mean, "all_gather", back]
    keys_are_teachers = [ask, gather, mean]
    expected = {
        "afd": plain,
        "affinity": plain,
        "clip_kd": plain,
        "contrastive": plain,
        "crd": plain,
        "cross_kd": keys_are_teachers,
        "decoupled_affinity": plain,
        "fd": nothing,
        "gd": gd,
        "gram": plain,
        "icl": keys_are_teachers,
        "mfd": nothing,
        "relation": plain,
        "siglip": plain,
        "sigmoid_kd": plain,
        "vrd": plain,
        "xrd": plain,
        "several teachers": None,
    }
    for found in results(2)["collectives"]:
        assert {**found, "several teachers": None} == expected
        assert found["several teachers"].count("reduce_scatter") <= len(gd)
