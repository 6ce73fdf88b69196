"""Students and teachers within wrappers: peft's way, a module of one's own, and what nobody can call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdlosses.integrations.distillation_step import distillation_loss
from kdlosses.integrations.lightning import CLIPDistillation
from kdlosses.integrations.model_adapters import arguments_for, bare_model, features_of, named_features
from tests.integrations.hf_models import Pairs, clip, open_clip_model, siglip, stacked
from tests.integrations.hf_runs import loss_for, trainer

BATCH = stacked([Pairs(4)[i] for i in range(4)])


class HandsOn(nn.Module):
    """As peft's PeftModel: its model's attributes are its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)


class Peft(HandsOn):
    def get_base_model(self) -> nn.Module:
        return self.base_model


class OfText(Peft):
    """As peft's for feature extraction: it names what texts need, and hands on the rest."""

    def forward(self, input_ids=None, attention_mask=None, task_ids=None, **kwargs):
        return self.base_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


class ByName(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **batch):
        return self.model(**batch)


class Own(ByName):
    """A forward of its own around any model."""

    def forward(self, picture, words):
        return named_features(self.model, self.model(**_given(self.model, picture, words)))


class Raw(ByName):
    """Takes an image and a text, gives what transformers gives."""

    def forward(self, picture, words):
        return self.model(pixel_values=picture, input_ids=words)


class Sees(ByName):
    """Takes transformers' names, gives what open_clip gives."""

    def forward(self, input_ids, pixel_values):
        features = features_of(self.model, (pixel_values, input_ids))
        return features["image_features"], features["text_features"], features["logit_scale"]


def _given(model, picture, words):
    names = ("pixel_values", "input_ids") if isinstance(model, type(clip())) else ("image", "text")
    return dict(zip(names, (picture, words), strict=True))


WRAPPERS = {
    "hands on": HandsOn,
    "peft": Peft,
    "by name": ByName,
    "own forward": Own,
    "twice": lambda model: HandsOn(ByName(Peft(model))),
    "compiled": lambda model: torch.compile(Peft(model), backend="eager"),
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(HandsOn(model)),
}


@pytest.mark.parametrize("make", [clip, open_clip_model])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_gives_what_the_model_gives(make, wrap):
    model = make().eval()
    with torch.compiler.set_stance("force_eager"):
        found, wanted = features_of(WRAPPERS[wrap](model).eval(), BATCH), features_of(model, BATCH)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("make", [clip, siglip])
@pytest.mark.parametrize("wrap", [OfText, Raw])
def test_a_wrapped_transformers_model(make, wrap):
    model = make().eval()
    found, wanted = features_of(wrap(model), BATCH), features_of(model, BATCH)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_one_frameworks_names_and_the_others_output():
    model = open_clip_model().eval()
    found, wanted = features_of(Sees(model), BATCH), features_of(model, BATCH)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_is_within():
    model = clip()
    for wrap in WRAPPERS.values():
        assert isinstance(bare_model(wrap(model)), type(model))


def test_a_forward_that_takes_one_thing_is_told_of():
    class OneBatch(ByName):
        def forward(self, batch):
            return self.model(**batch)

    with pytest.raises(ValueError, match=r"OneBatch.forward\(batch\) cannot be called with an image and a text \("):
        arguments_for(OneBatch(clip()), BATCH)


def test_several_models_are_told_of():
    both = HandsOn(clip())
    both.teacher = clip()
    with pytest.raises(ValueError, match=r"holds several models \(base_model, teacher\).* get_base_model\(\)"):
        features_of(both, BATCH)
    both.get_base_model = lambda: both.base_model
    assert features_of(both, BATCH)


@pytest.mark.parametrize("wrap", [Peft, *(pytest.param(wrap, marks=pytest.mark.slow) for wrap in (HandsOn, Raw))])
def test_in_the_trainer(wrap, tmp_path):
    student = wrap(clip())
    before = student.state_dict()["model.logit_scale" if wrap is Raw else "base_model.logit_scale"].clone()
    run = trainer(tmp_path, student, Peft(clip(24)), max_steps=2)
    run.train()
    after = student.state_dict()
    assert "kd_loss.cross_logit_scale" not in after
    assert not torch.equal(before, after["model.logit_scale" if wrap is Raw else "base_model.logit_scale"])


@pytest.mark.parametrize("wrap", [Peft, HandsOn, Raw])
def test_in_lightning(wrap):
    student, teacher = wrap(clip()), wrap(clip(24))
    loss = loss_for(student, teacher)
    module = CLIPDistillation(student, teacher, loss)
    terms = loss(**module(BATCH), **module.teacher_outputs(BATCH), output_dict=True)
    wanted = distillation_loss(student, teacher, loss, BATCH)
    assert all(torch.equal(terms[name], wanted[name]) for name in wanted)
    with torch.no_grad():
        bare_model(student).logit_scale.fill_(9.0)
    module.on_train_batch_end()
    assert bare_model(student).logit_scale.item() == pytest.approx(4.6052, abs=1e-3)
