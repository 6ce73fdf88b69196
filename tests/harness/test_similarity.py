"""Similarity of student and teacher, against formulas written out another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from harness.config import EvalSet, ModelConfig
from harness.errors import UserError
from harness.evaluate.synthetic import synthetic_sets_on_disk
from harness.models import create_model
from harness.similarity import alignment, cosines, embed, feature_similarity, loss_projection, read_pairs
from harness.train import train
from tests.harness import tiny

WIDE = {**tiny.TEACHER, "embed_dim": 16}


def model(name: str, config: dict):
    torch.manual_seed(len(name))
    return create_model(ModelConfig(model=name, config=config))


def pairs(count: int) -> tuple[list[Image.Image], list[str]]:
    noise = np.random.default_rng(0).integers(0, 255, (count, 40, 40, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise], [f"number {i} of them" for i in range(count)]


def test_cosines_are_those_of_the_models_own_features_and_no_batch_matters():
    student, teacher = model("test-sim-student", tiny.STUDENT), model("test-sim-teacher", WIDE)
    images, texts = pairs(5)
    student.model.train()
    found = feature_similarity(student, teacher, images, texts, batch_size=2)
    assert student.model.training, "the mode is the caller's"
    student.model.eval(), teacher.model.eval()
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        with torch.no_grad():
            seen = [m.model.encode_image(m.preprocess(image)[None])[0].numpy() for m in (student, teacher)]
            read = [m.model.encode_text(m.tokenizer([text]))[0].numpy() for m in (student, teacher)]
        for side, (a, b) in {"image": seen, "text": read}.items():
            expected = float(a @ b / np.sqrt((a * a).sum() * (b * b).sum()))
            assert found[side][place].item() == pytest.approx(expected, abs=1e-5)


def test_transparency_is_white_as_in_training():
    student = model("test-similarity-white", tiny.STUDENT)
    clear, white = Image.new("RGBA", (32, 32), (0, 0, 0, 0)), Image.new("RGB", (32, 32), "white")
    found = embed(student, [clear, white], ["one"])["image"]
    torch.testing.assert_close(found[0], found[1])
    with pytest.raises(UserError, match="an image cannot be embedded: pixels of mode F, whose range is not known"):
        embed(student, [Image.new("F", (32, 32))], ["one"])


def test_widths_that_differ_need_the_projection():
    generator = torch.Generator().manual_seed(0)
    student = {side: torch.randn(6, 4, generator=generator) for side in ("image", "text")}
    teacher = {side: nn.functional.normalize(torch.randn(6, 7, generator=generator)) for side in ("image", "text")}
    with pytest.raises(UserError, match="width 4, the teacher's 7"):
        cosines(student, teacher)
    layers = {side: nn.Linear(4, 7) for side in student}
    found = cosines(student, teacher, layers)["text"]
    projected = (student["text"] @ layers["text"].weight.T + layers["text"].bias).detach()
    expected = (projected * teacher["text"]).sum(1) / projected.norm(dim=1)
    torch.testing.assert_close(found, expected)


def test_alignment_is_hsic_of_gram_matrices():
    """CKA by its definition: tr(K H L H) / sqrt(tr(K H K H) tr(L H L H)), with K and L the Gram matrices."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 9))
    y[:, :5] += x
    centre = np.eye(12) - 1 / 12
    ours, theirs = x @ x.T @ centre, y @ y.T @ centre
    expected = np.trace(ours @ theirs) / np.sqrt(np.trace(ours @ ours) * np.trace(theirs @ theirs))
    assert alignment(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected, rel=1e-9)
    rotation = torch.linalg.qr(torch.tensor(rng.normal(size=(5, 5))))[0]
    assert alignment(torch.tensor(x), 3 * torch.tensor(x) @ rotation) == pytest.approx(1, abs=1e-9)


def test_the_projection_is_the_one_that_the_run_has_learnt(tmp_path):
    distil = {**tiny.DISTILL, "loss": {"weights": {"contrastive": 1, "fd": 100}}}
    train(tiny.recipe(**distil), tmp_path / "run")
    layers = loss_projection(tmp_path / "run")
    assert (layers["image"].in_features, layers["image"].out_features) == (16, 24)
    state = torch.load(tmp_path / "run" / "checkpoints" / "latest.pt", weights_only=True)["loss"]
    assert any(torch.equal(layers["text"].weight, tensor) for name, tensor in state.items() if "text_proj" in name)
    train(tiny.recipe(), tmp_path / "plain")
    assert loss_projection(tmp_path / "plain") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "it holds no state of a loss"),
        ([1], "it holds no state of a loss"),
        ({"loss": {"fd.visual_proj.weight": 3}}, "it holds no state of a loss"),
        ({"loss": {"fd.visual_proj.weight": torch.zeros(4, 3)}}, "visual_proj of the run's newest checkpoint is not a"),
        ({"loss": {"fd.visual_proj.weight": torch.zeros(4)}}, "visual_proj of the run's newest checkpoint is not a"),
        (None, "cannot be read"),
    ],
)
def test_a_checkpoint_without_a_projection_that_can_be_used(tmp_path, content, says):
    path = tmp_path / "checkpoints" / "step-0000003.pt"
    path.parent.mkdir()
    torch.save(content, path)
    if content is None:
        path.write_bytes(b"torn")
    with pytest.raises(UserError, match=says):
        loss_projection(tmp_path)


def test_pairs_of_a_set_are_its_images_with_their_first_captions(tmp_path):
    item = EvalSet(name="pairs", kind="retrieval", path="synthetic:7")
    images, texts = read_pairs(item)
    assert len(images) == len(texts) == 7
    with synthetic_sets_on_disk([item]) as (written,):
        assert read_pairs(written)[1] == texts
    assert embed(model("test-sim-student", tiny.STUDENT), images, texts)["image"].shape == (7, 16)
