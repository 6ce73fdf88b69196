"""On several processes a loss also says that its parameters drift apart, where nobody keeps them equal."""

from __future__ import annotations

import pytest

from tests.distributed import guarded

pytestmark = pytest.mark.distributed
SILENT = {"shared", "in-ddp", "loss-in-ddp", "fsdp1", "fsdp1-flat", "fsdp2", "fsdp2-whole"} & set(guarded.JOBS)
NAMES = ("cross_logit_scale", "visual_proj.weight", "visual_proj.bias", "text_proj.weight", "text_proj.bias")


@pytest.mark.parametrize("name", sorted(SILENT))
def test_it_is_silent_where_somebody_does(name, results):
    assert results(2)[f"guard-{name}"] == [[], []]


def test_it_is_silent_about_a_loss_within_its_process(results):
    assert results(2)["guard-alone"] == [[[], []]] * 2


def test_it_speaks_of_a_loss_within_its_process_whose_student_is_trained_by_all(results):
    for outside, outside_too, *within in results(2)["guard-alone-in-ddp"]:
        assert ["are neither in DistributedDataParallel" in sentence for (sentence,) in (outside, outside_too)] == [
            True
        ] * 2
        assert within == [[]] * 4


@pytest.mark.parametrize("name", ["nothing", "student-in-ddp"])
def test_it_names_parameters_and_cure(name, results):
    for (sentence,) in results(2)[f"guard-{name}"]:
        assert sentence.startswith("ICLLoss has parameters of its own that are neither in DistributedDataParallel")
        assert all(parameter in sentence for parameter in NAMES)
        assert "kdlosses.share_parameters(loss)" in sentence


def test_it_names_those_alone_that_ddp_was_told_to_ignore(results):
    for (sentence,) in results(2)["guard-left-out-of-ddp"]:
        assert all((parameter in sentence) == parameter.startswith("visual") for parameter in NAMES)


def test_it_says_both_once(results):
    for sentences in results(2)["guard-neither"]:
        assert ["no optimizer holds" in sentence for sentence in sentences] == [True, False]
        assert ["are neither" in sentence for sentence in sentences] == [False, True]


@pytest.mark.parametrize("name", sorted({"neither", "fsdp2-without-optimizer"} & set(guarded.JOBS)))
def test_it_sees_an_optimizer_that_is_missing_also_behind_fsdp2(name, results):
    for sentence, *_ in results(2)[f"guard-{name}"]:
        assert "no optimizer holds" in sentence
