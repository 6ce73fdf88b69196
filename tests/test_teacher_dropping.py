"""Teacher dropping: each pair learns from the teacher that it is furthest from, and from others by chance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import kdlosses
from kdlosses import Computation, MultiCaptionLoss, MultiTeacherLoss, Term, registry
from tests.distributed.cases import Nested, multi_teacher, of_teachers
from tests.problems import Inputs
from tests.running import UPSTREAM, Averaged, Outcome, assert_same, leaves, run
from tests.tolerance import assert_close

WEIGHTS = (1 / 6, 2 / 6, 3 / 6)  # multi_teacher's, divided by their sum
SEED = 3


def dropping(share: float = 0.5, weights: dict[str, float] | None = None, **keywords: Any) -> Nested:
    return multi_teacher(weights=weights or {"fd": 20.0}, teacher_dropping=share, **keywords)


def drawn(seed: int, count: int, teachers: int = 3) -> list[Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [torch.rand(count) for _ in range(teachers)]


def distances(given: Inputs, loss: Nested, number: int) -> Tensor:
    """[B]: fd of each pair to this teacher, as it is written."""
    total, layers = 0, loss.loss.teachers[number]
    for tower, name in (("image", "visual_proj"), ("text", "text_proj")):
        rows, target = given[f"{tower}_features"], given[f"dist_{tower}_features[{number}]"].detach()
        rows = getattr(layers, name)(rows) if hasattr(layers, name) else rows
        gap = rows / rows.norm(dim=1, keepdim=True) - target / target.norm(dim=1, keepdim=True)
        total = total + gap.square().mean(1)
    return total


def oracle(loss: Nested, inputs: Inputs, draws: list[Tensor], share: float) -> Outcome:
    given = leaves(inputs)
    loss.zero_grad(set_to_none=True)
    values = torch.stack([distances(given, loss, number) for number in range(3)])
    total = 0
    for pair in range(values.shape[1]):
        worst = int(values[:, pair].argmax())
        for number in range(3):
            if number == worst or draws[number][pair] >= share:
                total = total + WEIGHTS[number] * values[number, pair]
    value = 20.0 * total / values.shape[1]
    (UPSTREAM * value).backward()
    grads = {key: leaf.grad for key, leaf in given.items()}
    return Outcome(value.detach(), grads | {f"param.{name}": p.grad for name, p in loss.named_parameters()})


def seeded(loss: torch.nn.Module, inputs: Inputs, seed: int = SEED) -> Outcome:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return run(loss, inputs)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("backend", ["dense", "chunked", "reference"])
def test_value_and_gradients(share, backend):
    loss, inputs = dropping(share, backend=backend), of_teachers()
    found = seeded(loss, inputs)
    assert_same(found, oracle(loss, inputs, drawn(SEED, 8), share))
    assert found.value < run(loss.eval(), inputs).value


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_values_by_pair_are_of_the_same_draws(reduction):
    found = seeded(Averaged(dropping(reduction=reduction)), of_teachers())
    assert_close(found.value, seeded(dropping(), of_teachers()).value)


def test_none_are_dropped_in_evaluation_or_without_a_share():
    inputs, plain = of_teachers(), run(multi_teacher(weights={"fd": 20.0}), of_teachers())
    for loss in (dropping(0.0), dropping(0.5).eval()):
        assert torch.equal(run(loss, inputs).value, plain.value)


def test_a_resumed_run_drops_the_same():
    loss, inputs = dropping(), of_teachers()
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        first, second = loss(**inputs), loss(**inputs)
        torch.set_rng_state(state)
        assert torch.equal(loss(**inputs), first)
        assert torch.equal(loss(**inputs), second)
    assert not torch.equal(first, second)


def test_what_follows_the_teachers_average_drops_none():
    terms, inputs = {"fd": 20.0, "crd": 1.0, "icl": 1.0, "contrastive": 1.0}, of_teachers()
    whole = multi_teacher(weights=terms)(**inputs, output_dict=True)
    found = dropping(1.0, terms)(**inputs, output_dict=True)
    assert torch.equal(found["crd_loss"], whole["crd_loss"])
    assert torch.equal(found["contrastive_loss"], whole["contrastive_loss"])
    assert found["fd_loss"] < whole["fd_loss"]
    assert found["icl_loss"] < whole["icl_loss"]


def test_a_teachers_infinity_is_dropped_with_it():
    loss, inputs = dropping(1.0, {"sigmoid_kd": 1.0}), of_teachers()
    inputs["dist_logit_scale[0]"] = torch.tensor(0.0).double()
    assert loss(**inputs).isfinite()


def test_with_several_captions():
    inner = MultiTeacherLoss({"fd": 1.0}, student_dim=4, teacher_dims=[6, 3], teacher_dropping=1.0)
    loss, nested = MultiCaptionLoss(inner.double()), Nested.nested(of_teachers((6, 3)))
    twice = {key: [nested[key]] * 2 for key in ("text_features", "dist_text_features")}
    assert_close(loss(**nested | twice).detach(), 2 * inner(**nested).detach())


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    torch._dynamo.reset()
    loss, inputs = dropping(1.0), of_teachers()
    found = run(torch.compile(loss, fullgraph=True, backend="eager"), inputs)
    grads = {key.replace("_orig_mod.", ""): grad for key, grad in found.grads.items()}
    assert_same(Outcome(found.value, grads), run(loss, inputs))


@pytest.mark.parametrize("share", [-0.1, 1.5, True, "half"])
def test_a_share_is_a_probability(share):
    with pytest.raises(ValueError, match="teacher_dropping must be a probability, from 0 to 1, got"):
        dropping(share)


def test_nothing_to_drop():
    with pytest.raises(ValueError, match="nothing to drop: no term of contrastive, crd is a sum over teachers; add"):
        dropping(0.5, {"contrastive": 1.0, "crd": 1.0})
    assert "teacher_dropping=0.5" in repr(dropping(0.5))


class Apart(Term):
    """A term of somebody else's without values by pair, and with them."""

    name = "apart"
    needs = frozenset({"teacher", "aligned"})
    by_pair = False

    def compute(self, embeddings):
        rows = (embeddings.aligned.image.normalized() - embeddings.teacher.image.normalized()).abs().sum(1)
        return Computation([], lambda _: rows.mean(), (lambda _: rows) if self.by_pair else None)


def test_terms_of_others(monkeypatch):
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    kdlosses.register(Apart)
    with pytest.raises(ValueError, match="term 'apart' has no value for each pair, by which teacher_dropping chooses"):
        dropping(0.5, {"apart": 1.0})(**of_teachers())
    monkeypatch.setattr(Apart, "by_pair", True)
    assert dropping(0.5, {"apart": 1.0})(**of_teachers()).isfinite()
