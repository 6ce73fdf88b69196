"""`features_of` gives what the models themselves give, under one name, and says what a model or a batch lacks."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from torch import nn

from kdlosses import CRDLoss
from kdlosses.integrations.distillation_step import distillation_loss, teacher_batch
from kdlosses.integrations.model_adapters import embedding_width, features_of
from tests.integrations.hf_models import MODELS, Pairs, clip, open_clip_model, stacked

BATCH = stacked([Pairs(4)[i] for i in range(4)])
PAIR = (BATCH["pixel_values"], BATCH["input_ids"])


@pytest.mark.parametrize("name", ["clip", "siglip", "chinese_clip"])
def test_transformers_models(name):
    model = MODELS[name](24).eval()
    given = features_of(model, {**BATCH, "return_loss": True, "labels": torch.arange(4)})
    own = model(**BATCH)
    assert torch.equal(given["image_features"], own.image_embeds)
    assert torch.equal(given["text_features"], own.text_embeds)
    logits = given["logit_scale"] * own.text_embeds @ own.image_embeds.T + given.get("logit_bias", 0)
    torch.testing.assert_close(logits, own.logits_per_text)
    assert ("logit_bias" in given) == (name == "siglip")
    assert embedding_width(model) == 24 == own.image_embeds.shape[1]


@pytest.mark.parametrize("output_dict", [True, False])
@pytest.mark.parametrize("bias", [None, -10.0])
def test_open_clip_models(output_dict, bias):
    model = open_clip_model(24, output_dict=output_dict, init_logit_bias=bias).eval()
    given = features_of(model, PAIR)
    assert torch.equal(given["image_features"], model.encode_image(PAIR[0], normalize=True))
    assert torch.equal(given["text_features"], model.encode_text(PAIR[1], normalize=True))
    assert torch.equal(given["logit_scale"], model.logit_scale.exp())
    assert given.get("logit_bias") is model.logit_bias
    assert embedding_width(model) == 24


def test_either_frameworks_names_for_either_frameworks_models():
    for model in clip().eval(), open_clip_model().eval():
        wanted = features_of(model, PAIR)
        for batch in BATCH, {"image": PAIR[0], "text": PAIR[1]}:
            assert all(torch.equal(value, wanted[name]) for name, value in features_of(model, batch).items())


@pytest.mark.parametrize("make", [pytest.param(clip, marks=pytest.mark.slow), open_clip_model])
def test_through_wrappers(make):
    model = make().eval()
    compiled = torch.compile(model, backend="eager")
    wrapped = nn.Module()
    wrapped.module = compiled  # as DDP has it, without processes
    wrapped.forward = compiled.forward
    # torch 2.6 cannot trace transformers' CLIPModel; wrapped it is all the same.
    stance = "force_eager" if make is clip and torch.__version__ < "2.7" else "default"
    with torch.compiler.set_stance(stance):
        found = features_of(wrapped, BATCH)["image_features"]
    assert torch.equal(found, features_of(model, BATCH)["image_features"])
    assert embedding_width(wrapped) == 16


def test_the_scale_of_a_bfloat16_model_keeps_its_digits():
    model = clip().to(torch.bfloat16)
    assert features_of(model, BATCH)["logit_scale"] == model.logit_scale.float().exp()


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"input_ids": PAIR[1]}, "has no image: pixel_values or image is missing among input_ids"),
        ({"pixel_values": PAIR[0]}, "has no text: input_ids or text is missing among pixel_values"),
        ([PAIR[0]], "a mapping or a pair .images, texts., got list of 1"),
    ],
)
def test_what_a_batch_lacks(batch, words):
    for model in clip(), open_clip_model():
        with pytest.raises(ValueError, match=words):
            features_of(model, batch)


def test_models_that_give_no_embeddings():
    with pytest.raises(ValueError, match="CLIPVisionModel gives a dict of last_hidden_state, pooler_output where"):
        features_of(transformers.CLIPVisionModel(clip().config.vision_config), BATCH)
    with pytest.raises(ValueError, match="Bilinear gives a Tensor where image_features, text_features, logit_scale"):
        features_of(nn.Bilinear(2, 2, 2), (torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(ValueError, match="Linear does not say how wide its embeddings are"):
        embedding_width(nn.Linear(2, 2))


def test_what_of_a_batch_is_the_teachers():
    student = {"pixel_values": 1, "input_ids": 2, "attention_mask": 3}
    assert teacher_batch(student) == student
    assert teacher_batch({**student, "teacher_input_ids": 4}) == {"pixel_values": 1, "input_ids": 4}
    assert teacher_batch({**student, "teacher_pixel_values": 5}) == {**student, "pixel_values": 5}
    assert teacher_batch({**student, "teacher_image": 6, "teacher_text": 7}) == {"image": 6, "text": 7}
    assert teacher_batch(PAIR) is PAIR


def test_a_teacher_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="the teacher, a CLIPModel, is in training mode"):
        distillation_loss(clip(), clip().train(), nn.Identity(), BATCH)


def test_a_teacher_that_reads_another_tokenizers_tokens_is_told_of():
    student, batch = clip(), stacked(Pairs(4))
    teacher = open_clip_model(16)
    loss = CRDLoss()
    teacher.vocab_size += 1
    with pytest.warns(UserWarning, match=r"vocabulary of 65 tokens, .* 64, .*teacher_input_ids"):
        distillation_loss(student, teacher.eval(), loss, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distillation_loss(student, teacher, loss, batch | {"teacher_input_ids": batch["input_ids"]})
        teacher.vocab_size -= 1
        distillation_loss(student, teacher, loss, batch)
        del teacher.vocab_size  # unknown
        distillation_loss(student, teacher, loss, batch)
