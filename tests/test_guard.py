"""The warning about parameters that nobody trains: when it comes, when it must not, and that nothing is left of it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kdlosses
from kdlosses import UntrainedParametersWarning
from tests.plugins import collector
from tests.problems import Problem
from tests.running import build

PAGE = Path(__file__).parents[1] / "docs" / "parameters.md"
MIXED = Problem(student_dim=4, teacher_dim=6)
CROSS = ("cross_logit_scale",)
PROJECTIONS = ("visual_proj.weight", "visual_proj.bias", "text_proj.weight", "text_proj.bias")
OWNING = ["afd", "clip_kd", "cross_kd", "fd", "gd", "icl", "mfd", "vrd", "xrd"]

Call = Callable[..., Tensor]


def icl() -> nn.Module:
    return build("icl", MIXED, dtype=torch.float32)


def step(call: Call, problem: Problem = MIXED) -> None:
    """A forward and a backward pass, as a trainer makes them."""
    inputs = problem.inputs(torch.float32)
    inputs["image_features"].requires_grad_()
    call(**inputs).backward()


def told(action: Callable[[], object]) -> list[str]:
    """The guard's sentences while `action` runs; that Python shows a sentence once a place is switched off."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(one.message) for one in caught if one.category is UntrainedParametersWarning]


def hooks(loss: nn.Module) -> int:
    return sum(len(p._post_accumulate_grad_hooks or {}) for p in loss.parameters())


class TestItSpeaks:
    @pytest.mark.parametrize("name", OWNING)
    def test_of_every_loss_with_parameters(self, name):
        loss = build(name, MIXED, dtype=torch.float32)
        (sentence,) = told(lambda: step(loss))
        assert all(key in sentence for key, _ in loss.named_parameters())
        assert "add_param_group" in sentence

    def test_and_says_which_loss_it_is(self):
        loss = kdlosses.CLIPKDLoss({"icl": 2.0, "crd": 1.0}, student_dim=4, teacher_dim=4)
        (sentence,) = told(lambda: step(loss, Problem(student_dim=4, teacher_dim=4)))
        assert sentence.startswith("CLIPKDLoss (2 icl + 1 crd) has parameters of its own that no optimizer holds")

    def test_at_the_line_that_called_for_the_backward_pass(self):
        with pytest.warns(UntrainedParametersWarning) as caught:
            step(icl())
        assert caught[0].filename == __file__

    def test_in_the_words_of_its_page(self):
        page = " ".join(PAGE.read_text(encoding="utf-8").split())
        (sentence,) = told(lambda: step(kdlosses.ICLLoss(), Problem()))
        assert sentence in page

    def test_until_it_is_silenced_as_its_page_says(self):
        line = re.search(r"^warnings\.filterwarnings.*$", PAGE.read_text(encoding="utf-8"), flags=re.M)
        assert told(lambda: [exec(line[0]), step(icl())]) == []

    def test_once_for_each_instance(self):
        first, second = icl(), icl()
        assert len(told(lambda: [step(first) for _ in range(3)])) == 1
        assert len(told(lambda: step(second))) == 1

    def test_of_those_alone_that_are_in_no_optimizer(self):
        loss = icl()
        optimizer = torch.optim.SGD([loss.cross_logit_scale], lr=0.1)
        (sentence,) = told(lambda: step(loss))
        assert all(name in sentence for name in PROJECTIONS)
        assert "cross_logit_scale" not in sentence
        del optimizer

    def test_where_the_optimizer_is_gone(self):
        loss = icl()
        torch.optim.SGD(loss.parameters(), lr=0.1)
        gc.collect()
        assert told(lambda: step(loss))

    def test_as_an_error_for_who_wants_one(self):
        loss = icl()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedParametersWarning)
            with pytest.raises(UntrainedParametersWarning, match="ICLLoss has parameters"):
                step(loss)
            step(loss)

    def test_of_several_teachers(self):
        loss = kdlosses.MultiTeacherLoss({"fd": 1.0}, student_dim=4, teacher_dims=[6])
        inputs = MIXED.inputs(torch.float32)
        lists = {key: [value] if key.startswith("dist_") else value for key, value in inputs.items()}
        (sentence,) = told(lambda: loss(**lists).backward())
        assert "teachers.0.visual_proj.weight" in sentence

    @pytest.mark.parametrize(
        "change",
        [
            copy.copy,
            copy.deepcopy,
            lambda loss: pickle.loads(pickle.dumps(loss)),
            lambda loss: _saved(loss),
            lambda loss: loss.double(),
            lambda loss: loss.to("cpu"),
            lambda loss: loss.requires_grad_(False).requires_grad_(True),
            lambda loss: _from_meta(loss),
            lambda loss: _reloaded(loss, assign=False),
            lambda loss: _reloaded(loss, assign=True),
        ],
        ids=["copy", "deepcopy", "pickle", "save", "double", "to", "frozen a while", "meta", "state", "assigned state"],
    )
    def test_after_anything_that_may_happen_to_a_module(self, change):
        loss = change(icl())
        assert len(told(lambda: [step(loss), step(loss)])) == 1
        assert hooks(loss) == 0

    def test_of_a_copy_of_one_that_has_spoken(self):
        loss = icl()
        step(loss)
        assert len(told(lambda: step(copy.deepcopy(loss)))) == 1

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_within_checkpointing(self, reentrant):
        loss, inputs = icl(), MIXED.inputs(torch.float32)
        image = inputs.pop("image_features").requires_grad_()

        def call(image_features: Tensor) -> Tensor:
            return loss(image_features, **inputs)

        def both() -> None:
            for _ in range(2):
                checkpoint(call, image, use_reentrant=reentrant).backward()

        assert len(told(both)) == 1
        assert hooks(loss) == 0

    def test_after_forward_passes_without_gradients(self):
        loss = icl()
        with torch.no_grad():
            assert told(lambda: loss(**MIXED.inputs(torch.float32))) == []
        assert len(told(lambda: step(loss))) == 1

    @pytest.mark.slow
    def test_of_a_compiled_loss_which_is_compiled_once(self):
        torch._dynamo.reset()
        loss, graphs = icl(), []

        def count(graph, _):
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(loss, backend=count, fullgraph=True)
        assert len(told(lambda: [step(compiled) for _ in range(3)])) == 1
        assert len(graphs) == 1


class TestItIsSilent:
    @pytest.fixture(autouse=True)
    def _an_error(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedParametersWarning)
            yield

    def test_where_wrapping_in_ddp_has_failed(self):
        with pytest.raises(ValueError, match="process group") as failed:
            nn.parallel.DistributedDataParallel(icl())  # lives on in the traceback, half made
        self.test_where_an_optimizer_holds_them("icl")
        assert failed.tb

    @pytest.mark.parametrize("name", OWNING)
    def test_where_an_optimizer_holds_them(self, name):
        loss = build(name, MIXED, dtype=torch.float32)
        optimizer = torch.optim.AdamW(loss.parameters())
        step(loss)
        optimizer.step()

    def test_where_they_were_added_to_one(self):
        loss, optimizer = icl(), torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
        optimizer.add_param_group({"params": loss.parameters()})
        step(loss)

    def test_where_several_optimizers_hold_them(self):
        loss = icl()
        held = [torch.optim.SGD([p], lr=0.1) for p in loss.parameters()]
        step(loss)
        del held

    def test_where_a_wrapper_hides_the_optimizer(self):
        import accelerate  # here, as it takes a second

        loss = icl()
        optimizer = accelerate.Accelerator(cpu=True).prepare_optimizer(torch.optim.SGD(loss.parameters(), lr=0.1))
        step(loss)
        optimizer.step()

    def test_where_losses_share_a_student(self):
        student, losses = nn.Linear(4, 4), [icl(), build("fd", MIXED, dtype=torch.float32)]
        optimizer = torch.optim.SGD([*student.parameters(), *(p for loss in losses for p in loss.parameters())], lr=0.1)
        inputs = MIXED.inputs(torch.float32)
        inputs["image_features"] = student(inputs["image_features"])
        sum(loss(**inputs) for loss in losses).backward()
        optimizer.step()

    def test_about_frozen_parameters_even_if_others_are_trained(self):
        loss = icl()
        loss.visual_proj.requires_grad_(False)
        optimizer = torch.optim.SGD([p for p in loss.parameters() if p.requires_grad], lr=0.1)
        step(loss)
        optimizer.step()

    @pytest.mark.parametrize("name", ["contrastive", "crd", "affinity"])
    def test_about_losses_without_parameters(self, name):
        step(build(name, Problem(), dtype=torch.float32), Problem())

    def test_about_parameters_that_somebody_lends(self):
        """Those of functional_call are trained, if at all, by who passes them."""
        loss = icl()
        lent = {name: p.detach().clone().requires_grad_() for name, p in loss.named_parameters()}
        torch.func.functional_call(loss, lent, (), MIXED.inputs(torch.float32)).backward()
        assert all(p.grad is not None for p in lent.values())

    def test_about_gradients_that_are_asked_for_and_not_accumulated(self):
        loss = icl()
        torch.autograd.grad(loss(**MIXED.inputs(torch.float32)), [*loss.parameters()])

    @pytest.mark.slow
    def test_under_compiled_autograd(self):
        """Whose graphs can hold no look."""
        torch._dynamo.reset()
        loss = build("fd", MIXED, dtype=torch.float32)
        value = loss(**MIXED.inputs(torch.float32))
        with torch._dynamo.config.patch(compiled_autograd=True):
            torch.compile(lambda: value.backward(), backend="eager")()
        assert all(p.grad is not None for p in loss.parameters())

    def test_and_does_not_look_where_nobody_would_hear(self, monkeypatch):
        monkeypatch.setattr(gc, "get_referrers", lambda *classes: pytest.fail("looked"))
        warnings.simplefilter("ignore", UntrainedParametersWarning)
        step(icl())

    def test_about_what_gc_freeze_hides(self, monkeypatch):
        monkeypatch.setattr(gc, "get_freeze_count", collector.get_freeze_count)
        loss = icl()
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
        gc.freeze()
        step(loss)
        del optimizer


class TestNothingIsLeft:
    def test_no_hook_and_no_guard(self):
        loss = icl()
        assert hooks(loss) == 5
        step(loss)
        assert hooks(loss) == 0
        assert loss._guard is None

    def test_nor_a_look_at_later_steps(self, monkeypatch):
        loss = icl()
        step(loss)
        monkeypatch.setattr(gc, "get_objects", lambda: pytest.fail("looked again"))
        step(loss)

    def test_nor_the_loss_itself(self):
        loss, dead = icl(), []
        weakref.finalize(loss, dead.append, True)
        gc.disable()
        try:
            del loss
        finally:
            gc.enable()
        assert dead == [True]

    def test_other_hooks_stay(self):
        loss, seen = icl(), []
        loss.cross_logit_scale.register_post_accumulate_grad_hook(seen.append)
        step(loss)
        step(loss)
        assert len(seen) == 2


def _saved(loss: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _from_meta(loss: nn.Module) -> nn.Module:
    state = loss.state_dict()
    loss.to("meta").to_empty(device="cpu").load_state_dict(state)
    return loss


def _reloaded(loss: nn.Module, assign: bool) -> nn.Module:
    loss.load_state_dict({key: value.clone() for key, value in loss.state_dict().items()}, assign=assign)
    return loss
