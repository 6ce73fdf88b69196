"""One training step's mathematics: each model gets the input it was made for, the teacher stays frozen, MFD masks."""

import pytest
import torch
from torch import Tensor, nn

import kdlosses
from harness.config import LossConfig
from harness.data import Batch
from harness.errors import UserError
from harness.models import create_model
from harness.objective import reads_student_scale
from harness.task import DistillTask
from tests.harness import tiny
from tests.problems import Problem
from tests.running import build, leaves


def make(
    weights: dict[str, float],
    student: dict = tiny.STUDENT,
    autocast: torch.dtype | None = None,
    teacher: dict = tiny.DISTILL["teacher"],
    **loss: object,
):
    recipe = tiny.recipe(
        student={"model": "test-task-student", "config": student},
        teacher=teacher,
        loss={"weights": weights, **loss},
    )
    models = create_model(recipe.student), create_model(recipe.teacher)
    task = DistillTask(models[0], models[1:], recipe.loss, autocast).train()
    captions = ["a red apple", "two dogs", "the sea", "a house"]
    tokens = {role: model.tokenizer(captions) for role, model in zip(("student", "teacher"), models, strict=True)}
    batch = Batch(torch.zeros(4, 3, 48, 48, dtype=torch.uint8), tokens, captions, captions)
    return task, models, batch, torch.rand(4, 3, 48, 48)


def step(task: DistillTask, view: Tensor, batch: Batch, seed: int = 0):
    return task(task.inputs(view, batch), torch.Generator().manual_seed(seed))


class Spy(nn.Module):
    """Wraps a model and remembers what it was fed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        self.image, self.text, self.grad = image, text, torch.is_grad_enabled()
        return self.model(image, text)


def test_each_model_gets_its_own_size_and_tokens_from_one_view():
    task, models, batch, view = make({"contrastive": 1, "crd": 1})
    task.encoder.student, task.teachers[0] = Spy(task.student), Spy(task.teachers[0])
    step(task, view, batch)
    _, teacher = models
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (teacher.mean, teacher.std))
    assert torch.allclose(task.teachers[0].image, (view - mean) / std, atol=1e-6)  # the view has the teacher's size
    assert task.encoder.student.image.shape[-2:] == (32, 32)
    assert (task.encoder.student.text.shape[1], task.teachers[0].text.shape[1]) == (12, 16)
    assert (task.encoder.student.grad, task.teachers[0].grad) == (True, False)


def test_losses_are_those_of_kdlosses_on_the_models_outputs():
    weights = {"contrastive": 1, "crd": 2, "icl": 1}
    task, (student, teacher), batch, view = make(weights)
    losses = step(task, view, batch)
    from harness.data import prepare

    with torch.no_grad():
        outputs = student.model(prepare(view, 32, student.mean, student.std), batch.tokens["student"])
        taught = teacher.model(prepare(view, 48, teacher.mean, teacher.std), batch.tokens["teacher"])
        expected = task.loss(**outputs, **{f"dist_{name}": value for name, value in taught.items()}, output_dict=True)
    assert list(losses) == [f"{term}_loss" for term in weights]
    for name, value in expected.items():
        assert torch.allclose(losses[name], value)


def test_the_teacher_is_frozen_and_the_loss_learns():
    task, _, batch, view = make({"contrastive": 1, "fd": 10, "icl": 1})
    losses = step(task, view, batch)
    sum(losses.values()).backward()
    assert not task.teachers[0].training
    assert not any(p.requires_grad or p.grad is not None for p in task.teachers.parameters())
    names = [name for name, _ in task.trainable()]
    assert not any(name.startswith("teacher") for name in names)
    for name in ("loss.visual_proj.weight", "loss.text_proj.bias", "loss.cross_logit_scale", "student.logit_scale"):
        assert name in names
        assert task.get_parameter(name).grad is not None


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_mfd_masks_the_students_image_only(kind):
    task, (student, _), batch, view = make({"contrastive": 1, "fd": 1, "mfd": 1}, mask_kind=kind, mask_ratio=0.75)
    first = step(task, view, batch, seed=1)
    assert not torch.allclose(first["mfd_loss"], first["fd_loss"])
    again = step(task, view, batch, seed=1)
    other = step(task, view, batch, seed=2)
    assert torch.equal(first["mfd_loss"], again["mfd_loss"])
    assert not torch.equal(first["mfd_loss"], other["mfd_loss"])
    assert torch.equal(first["contrastive_loss"], other["contrastive_loss"])
    assert isinstance(student.model.visual.patch_dropout, nn.Identity)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_mfd_at_ratio_zero_is_fd(kind):
    task, _, batch, view = make({"fd": 1, "mfd": 1}, mask_kind=kind, mask_ratio=0)
    losses = step(task, view, batch)
    assert torch.allclose(losses["mfd_loss"], losses["fd_loss"])


def test_released_mfd_does_not_mask():
    task, _, batch, view = make({"fd": 1, "mfd": 1}, variant="released")
    losses = step(task, view, batch)
    assert torch.equal(losses["mfd_loss"], losses["fd_loss"])


def test_tokens_of_a_resnet_cannot_be_dropped_but_its_pixels_can():
    with pytest.raises(UserError, match=r"set loss\.mask_kind to pixels"):
        make({"mfd": 1}, student=tiny.RESNET)
    task, _, batch, view = make({"fd": 1, "mfd": 1}, student=tiny.RESNET, mask_kind="pixels")
    losses = step(task, view, batch)
    assert not torch.allclose(losses["mfd_loss"], losses["fd_loss"])


def test_what_cannot_be_masked_is_said_before_any_data():
    with pytest.raises(UserError, match=r"loss.mask_ratio .*would hide all 16 patches"):
        make({"mfd": 1}, mask_ratio=0.99)
    odd = {**tiny.STUDENT, "vision_cfg": {**tiny.STUDENT["vision_cfg"], "patch_size": 7}}
    with pytest.raises(UserError, match="patch_size=7 must divide"):
        make({"mfd": 1}, student=odd, mask_kind="pixels")


def test_a_teacher_that_no_term_uses_is_not_run():
    task, _, batch, view = make({"contrastive": 1, "crd": 0})
    assert len(task.teachers) == 0
    assert list(step(task, view, batch)) == ["contrastive_loss"]


def test_autocast_is_for_the_models_and_losses_stay_float32():
    task, _, batch, view = make({"contrastive": 1, "crd": 1}, autocast=torch.bfloat16)
    losses = step(task, view, batch)
    assert all(value.dtype == torch.float32 for value in losses.values())
    plain, _, _, _ = make({"contrastive": 1, "crd": 1})
    plain.load_state_dict(task.state_dict())
    exact = step(plain, view, batch)
    assert not torch.equal(exact["crd_loss"], losses["crd_loss"])  # bf16 really was in use
    assert torch.allclose(exact["crd_loss"], losses["crd_loss"], atol=0.05)


def test_a_loss_that_cannot_be_built_names_the_recipes_key_and_both_widths():
    with pytest.raises(UserError, match=r"recipe key loss: .*student_dim=16, teacher_dim=24"):
        make({"afd": 1}, variant="released")


def test_every_loss_can_be_trained_by_the_task():
    student = {**tiny.STUDENT, "init_logit_bias": -4}
    teacher = {"model": "test-task-biased", "config": {**tiny.TEACHER, "init_logit_bias": -5}}
    for variant in ("paper", "released"):
        terms = [
            term for term in kdlosses.available_terms(without_options=True) if (term, variant) != ("afd", "released")
        ]
        task, _, batch, view = make(dict.fromkeys(terms, 1.0), student, teacher=teacher, variant=variant)
        losses = step(task, view, batch)
        assert sorted(losses) == sorted(f"{term}_loss" for term in terms)
        assert all(torch.isfinite(value) for value in losses.values())


def test_a_recipe_chooses_the_backend_and_its_options():
    weights = {"contrastive": 1.0, "crd": 1.0}
    task, _, batch, view = make(weights, backend="chunked", backend_options={"chunk_size": 3})
    assert "chunked(chunk_size=3)" in repr(task.loss)
    dense, *_ = make(weights, backend="dense")
    dense.student.load_state_dict(task.student.state_dict())
    dense.teachers.load_state_dict(task.teachers.state_dict())
    ours, theirs = step(task, view, batch), step(dense, view, batch)
    torch.testing.assert_close(ours, theirs)


def test_a_recipe_tells_terms_their_options():
    weights = {"contrastive": 1.0, "affinity": 1.0}
    task, _, batch, view = make(weights, options={"affinity": {"teacher_scale": 50.0}})
    assert "1 affinity(teacher_scale=50)" in repr(task.loss)
    plain, *_ = make(weights)
    plain.load_state_dict(task.state_dict())
    ours, theirs = step(task, view, batch), step(plain, view, batch)
    torch.testing.assert_close(ours["contrastive_loss"], theirs["contrastive_loss"])
    assert abs(ours["affinity_loss"] - theirs["affinity_loss"]) > 1e-3


def test_a_term_at_a_scale_of_its_own_leaves_the_students_alone():
    own = {"affinity": {"student_scale": 50.0}}
    assert reads_student_scale(LossConfig(weights={"affinity": 1}))
    assert not reads_student_scale(LossConfig(weights={"affinity": 1}, options=own))
    named = {"soft": {"loss": "affinity", "student_scale": 50.0}}
    assert not reads_student_scale(LossConfig(weights={"soft": 1}, terms=named))
    assert reads_student_scale(LossConfig(weights={"soft": 1, "own": 1}, terms={**named, "own": {"loss": "affinity"}}))


@pytest.mark.parametrize(
    ("chosen", "projected", "reads"),
    [
        ({}, False, True),
        ({"student_scale": 5.0}, False, False),
        ({"keys": "teacher_text"}, True, True),
        ({"queries": "teacher_image", "keys": "text", "student_scale": 5.0}, True, False),
    ],
)
def test_what_a_term_reads_may_hang_on_its_options(chosen, projected, reads):
    recipe = LossConfig(weights={"mine": 1}, terms={"mine": {"loss": "relation", **chosen}})
    assert reads_student_scale(recipe) == reads
    assert recipe.reading("aligned") == (("mine",) if projected else ())
    assert recipe.reading("teacher") == ("mine",)


@pytest.mark.parametrize("term", kdlosses.available_terms(without_options=True))
def test_a_term_says_whether_its_gradient_reaches_the_students_scale(term):
    """Or recipes freeze the scale without a word."""
    loss, inputs = build(term, Problem()), leaves(Problem().inputs())
    loss(**inputs).backward()
    reached = inputs["logit_scale"].grad is not None
    assert reads_student_scale(LossConfig(weights={term: 1})) == reached


def test_a_backends_bad_option_names_the_recipe_key():
    with pytest.raises(UserError, match="recipe key loss: chunk_size must be a positive integer, got 0"):
        make({"contrastive": 1.0}, backend="chunked", backend_options={"chunk_size": 0})


def test_models_that_agree_on_their_input_share_it():
    alike = {**tiny.TEACHER, "vision_cfg": {**tiny.TEACHER["vision_cfg"], "image_size": 32}}
    recipe = tiny.recipe(teacher={"model": "test-task-alike", "config": alike}, loss={"weights": {"crd": 1}})
    models = create_model(recipe.student), create_model(recipe.teacher)
    task = DistillTask(models[0], models[1:], recipe.loss)
    tokens = {"student": torch.zeros(2, 12, dtype=torch.long), "teacher": torch.zeros(2, 16, dtype=torch.long)}
    batch = Batch(torch.zeros(2, 3, 48, 48, dtype=torch.uint8), tokens, ["a", "b"], ["a", "b"])
    inputs = task.inputs(torch.rand(2, 3, 48, 48), batch)
    assert inputs.teachers[0][0] is inputs.image


def test_several_teachers_teach_with_their_weights():
    """A teacher given twice teaches what it teaches once, whatever the weights; two others teach between them."""
    weights = {"contrastive": 1, "crd": 1, "fd": 10}
    other = {**tiny.TEACHER, "embed_dim": 40}
    recipe = tiny.recipe(
        teachers=[
            {"model": "test-task-first", "config": tiny.TEACHER, "weight": 3.0},
            {"model": "test-task-second", "config": other},
        ],
        loss={"weights": weights},
    )
    student, *teachers = [create_model(config) for config in (recipe.student, *recipe.all_teachers)]
    task = DistillTask(student, teachers, recipe.loss, None, [3.0, 1.0])
    captions = ["a red apple", "two dogs", "the sea", "a house"]
    roles = {"student": student, "teacher-1": teachers[0], "teacher-2": teachers[1]}
    tokens = {role: model.tokenizer(captions) for role, model in roles.items()}
    batch = Batch(torch.zeros(4, 3, 48, 48, dtype=torch.uint8), tokens, captions, captions)
    losses = step(task, torch.rand(4, 3, 48, 48), batch)
    assert sorted(losses) == ["contrastive_loss", "crd_loss", "fd_loss"]
    sum(losses.values()).backward()
    assert all(p.grad is not None for name, p in task.trainable())
    assert len([name for name, _ in task.trainable() if name.endswith("visual_proj.weight")]) == 2
