"""Teachers of today, small and random: SigLIP with its bias and tokenizer, DFN and MetaCLIP with QuickGELU."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from open_clip.model import CustomTextCLIP
from open_clip.transformer import QuickGELU
from PIL import Image

from harness.config import EvalSet, ModelConfig
from harness.data import Batch
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.export import export_model
from harness.importing import import_checkpoint
from harness.models import LoadedModel, create_model, load_model
from harness.optim import build_optimizer
from harness.smoke_test import forward_smoke_test
from harness.task import DistillTask, teacher_roles
from harness.teachers.build import build_cache
from harness.train import train
from tests.harness import tiny
from tests.harness.evaluate.eval_sets import write_retrieval, write_zeroshot
from tests.harness.teachers.teacher_caches import data, recipe

# As open_clip's ViT-B-16-SigLIP: a timm trunk with attention pooling and no projection, a text tower that sees ahead
# and pools its last token, a bias on the logits, a tokenizer from a folder, and its own idea of clean text.
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **open_clip.get_model_config("ViT-B-16-SigLIP")["text_cfg"],
        "context_length": 10,
        "vocab_size": 4645,
        "hf_tokenizer_name": "shipped:openmoji",
        "width": 64,
        "heads": 2,
        "layers": 1,
    },
}
ALL_TERMS = {"contrastive": 1, "crd": 1, "fd": 10, "gd": 1, "icl": 1, "afd": 1, "cross_kd": 1}
CAPTIONS = ["a red apple", "two dogs", "the sea", "a house"]


def shrunk(name: str) -> dict:
    """open_clip's config of a model with small towers; all else is as it is."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    config["embed_dim"] = 24
    config["vision_cfg"] |= {"image_size": 32, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8}
    config["text_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    return config


TEACHERS = {
    "siglip": SIGLIP,
    "dfn": shrunk("ViT-B-16-quickgelu"),
    "metaclip": shrunk("ViT-B-32-quickgelu"),
}

# MetaCLIP differs from DFN in its patches alone.
KINDS = ("siglip", "dfn", pytest.param("metaclip", marks=pytest.mark.slow))


def model(kind: str, **changes: object) -> LoadedModel:
    return create_model(ModelConfig(model=f"test-teacher-{kind}", config={**TEACHERS[kind], **changes}))


def student() -> LoadedModel:
    return create_model(ModelConfig(model="test-other-student", config=tiny.STUDENT))


def make(learner: LoadedModel, teachers: list[LoadedModel], weights: dict[str, float] = ALL_TERMS):
    """A task and four pairs."""
    loss = tiny.recipe(**{**tiny.DISTILL, "loss": {"weights": weights}}).loss
    task = DistillTask(learner, teachers, loss).train()
    roles = zip(("student", *teacher_roles(len(teachers))), (learner, *teachers), strict=True)
    tokens = {role: loaded.tokenizer(CAPTIONS) for role, loaded in roles}
    batch = Batch(torch.zeros(4, 3, 160, 160, dtype=torch.uint8), tokens, CAPTIONS, CAPTIONS)
    return task, task.inputs(torch.rand(4, 3, 160, 160), batch)


def losses(task: DistillTask, inputs) -> dict[str, torch.Tensor]:
    return task(inputs, torch.Generator().manual_seed(0))


def learn(task: DistillTask, inputs) -> None:
    """Two steps."""
    optimizer = build_optimizer(task.trainable(), tiny.recipe(**tiny.DISTILL).optim, "student")
    for _ in range(2):
        optimizer.zero_grad()
        values = losses(task, inputs)
        assert all(value.isfinite() for value in values.values())
        sum(values.values()).backward()
        optimizer.step()


def test_a_siglip_is_one():
    loaded = model("siglip")
    assert isinstance(loaded.model, CustomTextCLIP)
    assert loaded.model.logit_bias == -10 and loaded.tokenizer(["A  Cat!"]).shape == (1, 10)
    assert torch.equal(loaded.tokenizer(["A  Cat!"]), loaded.tokenizer(["a cat"]))  # canonical text
    forward_smoke_test(loaded, "teacher")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_with_another_tokenizer_size_and_length_learns_from_it(kind):
    torch.manual_seed(0)
    learner, teacher = student(), model(kind)
    before, taught = copy.deepcopy(learner.model.state_dict()), copy.deepcopy(teacher.model.state_dict())
    task, inputs = make(learner, [teacher])
    assert inputs.tokens.shape[1] == 12 and inputs.teachers[0][1].shape[1] == (10 if kind == "siglip" else 77)
    learn(task, inputs)
    assert any(not torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert all(torch.equal(value, taught[name]) for name, value in teacher.model.state_dict().items())


def test_the_teachers_bias_changes_no_loss():
    learner, teacher = student(), model("siglip")
    task, inputs = make(learner, [teacher])
    with_bias = losses(task, inputs)
    teacher.model.logit_bias.fill_(0)
    without = losses(task, inputs)
    assert set(with_bias) == {f"{term}_loss" for term in ALL_TERMS}
    assert all(torch.equal(value, without[name]) for name, value in with_bias.items())


def test_a_siglip_student_keeps_its_bias():
    learner = model("siglip")
    task, inputs = make(learner, [model("dfn")])
    assert "student.logit_bias" not in dict(task.trainable())
    learn(task, inputs)
    assert learner.model.logit_bias == -10 and learner.model.logit_bias.grad is None


@pytest.mark.parametrize(
    "kinds", [("siglip", "metaclip"), pytest.param(("metaclip", "siglip"), marks=pytest.mark.slow)]
)
def test_teachers_with_and_without_a_bias_teach_together(kinds):
    weights = {"contrastive": 1, "crd": 1, "fd": 10, "icl": 1, "cross_kd": 1}
    task, inputs = make(student(), [model(kind) for kind in kinds], weights)
    learn(task, inputs)


def outputs(loaded: LoadedModel):
    image = loaded.preprocess(Image.effect_noise((64, 48), 80).convert("RGB"))[None]
    with torch.no_grad():
        return loaded.model.eval()(image, loaded.tokenizer(["a photo of a cat"]))


@pytest.mark.parametrize("kind", KINDS)
def test_its_export_is_the_same_model_in_stock_open_clip(kind, tmp_path):
    torch.manual_seed(0)
    loaded = model(kind)
    export_model(loaded, tmp_path / "export")
    source = f"local-dir:{tmp_path / 'export'}"
    stock, _, _ = open_clip.create_model_and_transforms(source, output_dict=True)
    tokens = open_clip.get_tokenizer(source)(CAPTIONS)
    assert torch.equal(tokens, loaded.tokenizer(CAPTIONS))
    image = torch.randn(4, 3, loaded.image_size, loaded.image_size)
    with torch.no_grad():
        ours, theirs = loaded.model.eval()(image, tokens), stock.eval()(image, tokens)
    assert ours.keys() == theirs.keys() and ("logit_bias" in ours) == (kind == "siglip")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("kind", KINDS)
def test_its_checkpoint_is_imported(kind, tmp_path):
    loaded = model(kind)
    export_model(loaded, tmp_path / "export")
    torch.save({"state_dict": {f"module.{n}": v for n, v in loaded.model.state_dict().items()}}, tmp_path / "c.pt")
    import_checkpoint(tmp_path / "c.pt", tmp_path / "out", config=tmp_path / "export" / "open_clip_config.json")
    again = load_model(str(tmp_path / "out"))
    image = torch.randn(1, 3, loaded.image_size, loaded.image_size)
    with torch.no_grad():
        assert torch.equal(loaded.model.eval().encode_image(image), again.model.eval().encode_image(image))
    assert torch.equal(again.tokenizer(CAPTIONS), loaded.tokenizer(CAPTIONS))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_quick_gelu_is_what_they_compute_with(kind, tmp_path):
    """Weights do not tell the activation: under the other one the same weights give other embeddings."""
    loaded = model(kind)
    assert any(isinstance(module, QuickGELU) for module in loaded.model.visual.modules())
    torch.save(loaded.model.state_dict(), tmp_path / "c.pt")
    section = {"model": f"test-teacher-{kind}-plain", "config": {**TEACHERS[kind], "quick_gelu": False}}
    plain = create_model(ModelConfig(**section, pretrained=str(tmp_path / "c.pt")))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        quick, gelu = (each.model.eval().encode_image(image, normalize=True) for each in (loaded, plain))
    assert not torch.allclose(quick, gelu, atol=1e-4)


def test_a_siglip_is_evaluated(tmp_path):
    sets: list[EvalSet] = [
        write_zeroshot(tmp_path / "shapes", [0, 1, 2, 0], ["cat", "dog", "sea"]),
        write_retrieval(tmp_path / "pairs", [["a cat"], ["a dog"], ["the sea"]]),
    ]
    found = evaluate(model("siglip"), sets)
    assert 0 <= found["shapes"]["top1"] <= 100 and 0 <= found["pairs"]["i2t_r1"] <= 100


@pytest.mark.slow
def test_a_siglip_teaches_a_whole_run_live_and_from_its_cache(tmp_path):
    wanted = recipe(data("csv", tmp_path, 9), tmp_path, teacher={"model": "test-teacher-siglip", "config": SIGLIP},
                    data={"image_size": 48}, train={"batch_size": 4, "steps": 2, "log_every": 1})  # fmt: skip
    train(wanted, tmp_path / "live")
    build_cache(wanted)
    used = wanted.model_copy(update={"teacher_cache": wanted.teacher_cache.model_copy(update={"use": True})})
    train(used, tmp_path / "cached")
    assert load_model(f"run:{tmp_path / 'cached'}").embed_dim == 16


@pytest.mark.slow  # its steps and its teaching a whole run are fast
def test_a_siglip_student_is_trained_saved_and_loaded(tmp_path):
    wanted = tiny.recipe(
        student={"model": "test-teacher-siglip", "config": SIGLIP},
        teacher=tiny.DISTILL["teacher"],
        loss=tiny.DISTILL["loss"],
        train={"batch_size": 4, "steps": 2, "log_every": 1},
    )
    train(wanted, tmp_path / "run")
    assert load_model(f"run:{tmp_path / 'run'}").model.logit_bias == -10


def test_a_coca_is_refused_before_any_data():
    config = shrunk("coca_ViT-B-32")
    config["embed_dim"] = 16
    config["vision_cfg"]["attn_pooler_heads"] = 2
    config["multimodal_cfg"] |= {"width": 16, "heads": 2, "layers": 1}
    loaded = create_model(ModelConfig(model="test-teacher-coca", config=config))
    with pytest.raises(UserError, match=r"teacher test-teacher-coca is not a plain CLIP: .* returns labels, logits"):
        forward_smoke_test(loaded, "teacher")
