"""FDLoss: mean squared error of unit rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import kdlosses
from kdlosses.testing import check_term
from tests import strategies
from tests.problems import Inputs, Problem
from tests.running import UPSTREAM, Outcome, assert_equals_oracle, assert_gradcheck, assert_same, build, leaves, run
from tests.tolerance import assert_close

MIXED = Problem(student_dim=4, teacher_dim=6)


@pytest.mark.parametrize("variant", ["paper", "released"])
@given(problem=strategies.problems())
def test_value_and_gradients(variant, problem):
    assert_equals_oracle("fd", problem, variant)


@pytest.mark.parametrize("teacher_dim", [4, 3])
def test_gradcheck(teacher_dim):
    assert_gradcheck("fd", Problem(batch=3, student_dim=4, teacher_dim=teacher_dim))


def test_is_the_cosine_distance_divided_by_the_width():
    """Which is why its weight grows with D: ||a - b||^2 = 2 - 2 cos for unit rows."""
    inputs = Problem(student_dim=5, teacher_dim=5).inputs()
    image = F.cosine_similarity(inputs["image_features"], inputs["dist_image_features"])
    text = F.cosine_similarity(inputs["text_features"], inputs["dist_text_features"])
    assert_close(kdlosses.FDLoss()(**inputs), ((2 - 2 * image).mean() + (2 - 2 * text).mean()) / 5)


def test_opposite_rows_are_the_worst():
    inputs = Problem(student_dim=5, teacher_dim=5).inputs()
    inputs |= {f"dist_{key}": -inputs[key] for key in ("image_features", "text_features")}
    assert_close(kdlosses.FDLoss()(**inputs), 8 / 5)


def test_equal_widths_need_no_projection():
    assert not list(kdlosses.FDLoss(student_dim=6, teacher_dim=6).parameters())


def test_a_projection_for_images_and_one_for_texts():
    shapes = {name: tuple(p.shape) for name, p in build("fd", Problem(student_dim=4, teacher_dim=6)).named_parameters()}
    assert shapes == {
        "visual_proj.weight": (6, 4),
        "visual_proj.bias": (6,),
        "text_proj.weight": (6, 4),
        "text_proj.bias": (6,),
    }


def mix(inputs: Inputs, towers: dict[str, float], share: float, params: Inputs) -> Tensor:
    """sum_t w_t [(1 - a) mse + a smooth L1 of sqrt(D) times the difference, over D], number by number."""
    total = 0
    for tower, weight in towers.items():
        rows = inputs[f"{tower}_features"]
        layer = {"image": "visual_proj", "text": "text_proj"}[tower]
        if f"{layer}.weight" in params:
            rows = rows @ params[f"{layer}.weight"].T + params[f"{layer}.bias"]
        target = inputs[f"dist_{tower}_features"].detach()
        gap = rows / rows.norm(dim=1, keepdim=True) - target / target.norm(dim=1, keepdim=True)
        width = gap.shape[1]
        size = (width**0.5 * gap).abs()
        smooth = torch.where(size < 1, size.square() / 2, size - 0.5).mean() / width
        total = total + weight * ((1 - share) * gap.square().mean() + share * smooth)
    return total


def of_oracle(loss: nn.Module, inputs: Inputs, towers: dict[str, float], share: float) -> Outcome:
    given, params = leaves(inputs), leaves({name: p.detach() for name, p in loss.named_parameters()})
    value = mix(given, towers, share, params)
    (UPSTREAM * value).backward()
    grads = {key: leaf.grad for key, leaf in given.items()}
    return Outcome(value.detach(), grads | {f"param.{key}": leaf.grad for key, leaf in params.items()})


@given(
    problem=strategies.problems(max_batch=5),
    towers=st.sampled_from([{"image": 2.0}, {"text": 0.5}, {"image": 1.0, "text": 3.0}]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    backend=st.sampled_from(["dense", "chunked", "reference"]),
)
def test_towers_and_smooth_l1(problem, towers, share, backend):
    loss = build("fd", problem, towers=towers, smooth_l1=share, backend=backend)
    assert_same(run(loss, problem.inputs()), of_oracle(loss, problem.inputs(), towers, share))


@pytest.mark.slow
def test_on_every_backend_and_over_processes():
    towers = {"image": 2.0}

    def plain(**given: Tensor) -> Tensor:
        params = {key.replace("proj_", "proj."): value for key, value in given.items() if "_proj_" in key}
        return mix(given, towers, 0.3, params)

    check_term("fd", plain, options={"towers": towers, "smooth_l1": 0.3}, widths=(5, 4), compiled=False)


def without_texts(inputs: Inputs) -> dict[str, Tensor | None]:
    return inputs | {"text_features": None, "dist_text_features": None}


def test_images_alone_need_no_texts():
    inputs = MIXED.inputs()
    loss = build("fd", MIXED, towers=["image"])
    assert {name for name, _ in loss.named_parameters()} == {"visual_proj.weight", "visual_proj.bias"}
    expected = loss(**inputs)
    for keys in (["text_features"], ["dist_text_features"], ["text_features", "dist_text_features"]):
        assert torch.equal(loss(**inputs | dict.fromkeys(keys)), expected)
    checked = build("fd", MIXED, towers=["image"], check=True)
    assert torch.equal(checked(**without_texts(inputs)), expected)


def test_images_alone_in_prefixes_and_of_several_teachers():
    inputs, dims = without_texts(MIXED.inputs()), {"student_dim": 4, "teacher_dim": 6}
    loss = kdlosses.MatryoshkaLoss(kdlosses.FDLoss(towers=["image"], **dims), [2, 4]).double()
    loss(**inputs).backward()
    assert all(p.grad is not None for p in loss.parameters())
    options = {"fd": {"towers": ["image"]}}
    several = kdlosses.MultiTeacherLoss({"fd": 1.0}, options=options, student_dim=4, teacher_dims=[6, 6]).double()
    both = {key: [inputs[key]] * 2 for key in ("dist_image_features", "dist_logit_scale")}
    assert several(**inputs | both | {"dist_text_features": None, "dist_logit_bias": None}).isfinite()


def test_a_sum_asks_for_texts_where_any_term_reads_them():
    loss = kdlosses.CLIPKDLoss({"fd": 1.0, "crd": 1.0}, options={"fd": {"towers": ["image"]}})
    inputs = Problem().inputs()
    assert loss(**inputs).isfinite()
    with pytest.raises(ValueError, match=r"text_features must be a \[B, D\] tensor, got NoneType"):
        loss(**inputs | {"text_features": None})
    with pytest.raises(ValueError, match="missing: dist_text_features"):
        loss(**inputs | {"dist_text_features": None})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"towers": ["imge"]}, "did you mean 'image'"),
        ({"towers": {"image": 0.0}}, "must give image or text a weight above zero"),
        ({"towers": []}, "must name some of image, text"),
        ({"smooth_l1": 1.5}, "smooth_l1 of term 'fd' is a share, from 0 for squares to 1 for smooth L1 alone, got 1.5"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        kdlosses.FDLoss(**options)


class TestStandardized:
    """Targets whose numbers have mean 0 and variance 1, by the statistics of the batches before."""

    problems = tuple(MIXED.with_(seed=seed) for seed in (11, 12, 13))

    def loss(self, **options: object) -> nn.Module:
        return build("fd", MIXED, standardize="running", **options)

    def expected(self, loss: nn.Module, seen: list[Inputs], inputs: Inputs) -> Outcome:
        """fd to targets made with the mean and variance of all that was seen, in one piece."""
        targets = {}
        for side in ("image", "text"):
            key = f"dist_{side}_features"
            rows = F.normalize(torch.cat([one[key] for one in seen]), dim=1)
            targets[key] = (F.normalize(inputs[key], dim=1) - rows.mean(0)) / rows.std(0, correction=0)
        towers = {"image": 1.0, "text": 1.0}
        found = of_oracle(loss, inputs | targets, towers, 0.0)
        return Outcome(found.value, found.grads)

    def test_value_and_gradients(self):
        loss, batches = self.loss(), [one.inputs() for one in self.problems]
        assert torch.equal(loss(**batches[0]), build("fd", MIXED)(**batches[0]))
        loss(**batches[1])
        loss.eval()
        assert_same(run(loss, batches[2]), self.expected(loss, batches[:2], batches[2]))
        assert_same(run(loss, batches[2]), self.expected(loss, batches[:2], batches[2]))  # nothing was learnt in eval

    def test_after_so_many_steps_the_statistics_stay(self):
        loss, batches = self.loss(standardize_steps=2), [one.inputs() for one in self.problems]
        for batch in batches:
            loss(**batch)
        assert_same(run(loss, batches[2]), self.expected(loss, batches[:2], batches[2]))

    def test_they_are_saved_with_the_loss(self):
        loss, other, inputs = self.loss(), self.loss(), MIXED.inputs()
        loss(**inputs)
        other.load_state_dict(loss.state_dict())
        assert torch.equal(other(**inputs), loss(**inputs))
        assert {name for name, _ in loss.named_buffers()} >= {"term_state.fd.count", "term_state.fd.text_mean"}

    def test_of_each_of_several_teachers(self):
        options = {"fd": {"standardize": "running", "towers": ["image"]}}
        loss = kdlosses.MultiTeacherLoss({"fd": 1.0}, options=options, student_dim=4, teacher_dims=[6, 6]).double()
        one, other = (problem.inputs() for problem in self.problems[:2])
        both = {key: [one[key], other[key]] for key in one if key.startswith("dist_")}
        loss(**one | both)
        means = [layers.term_state["fd"].image_mean for layers in loss.teachers]
        assert_close(means[1], F.normalize(other["dist_image_features"], dim=1).mean(0))
        assert not torch.equal(*means)
        assert loss(**one | both).isfinite()

    def test_a_number_that_never_changes_is_nothing(self):
        loss, inputs = self.loss(), MIXED.inputs()
        inputs["dist_image_features"] = inputs["dist_image_features"].clone()
        inputs["dist_image_features"][:, 0] = 0.0
        loss(**inputs)
        assert run(loss, inputs).grads["image_features"].isfinite().all()

    @pytest.mark.slow
    def test_compiled(self):
        torch._dynamo.reset()
        loss, twin, inputs = self.loss(smooth_l1=0.3), self.loss(smooth_l1=0.3), MIXED.inputs()
        compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
        for _ in range(3):
            assert_close(compiled(**inputs).detach(), loss(**inputs).detach())
        assert_close(twin.term_state["fd"].image_mean, loss.term_state["fd"].image_mean)
        assert twin.term_state["fd"].seen_steps == 3

    def test_what_it_needs(self):
        with pytest.raises(
            ValueError, match="fd standardizes the teacher's numbers: construct the loss with student_d"
        ):
            kdlosses.FDLoss(standardize="running")
        with pytest.raises(ValueError, match="standardize_steps of term 'fd' must be at least 1, got 0"):
            self.loss(standardize_steps=0)
        with pytest.raises(ValueError, match="MatryoshkaLoss cannot take terms that keep a state between calls"):
            kdlosses.MatryoshkaLoss(self.loss(), [2, 4])
