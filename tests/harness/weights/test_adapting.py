"""What open_clip's loader evens out between weights and model is evened out here alike, and said."""

import copy
import json
import logging

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config import ModelConfig
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model, load_model
from harness.weights import load_into
from tests.harness import tiny


@pytest.fixture(autouse=True)
def hearing(caplog):
    caplog.set_level(logging.INFO, "harness")


def config(base=tiny.STUDENT, image_size=32, context_length=12, **others):
    made = {**copy.deepcopy(base), **others}
    made["vision_cfg"]["image_size"], made["text_cfg"]["context_length"] = image_size, context_length
    return made


def created(name, cfg, pretrained=None):
    return create_model(ModelConfig(model=name, config=cfg, pretrained=pretrained and str(pretrained))).model


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    torch.save(created("test-adapt", config()).state_dict(), tmp_path / "c.pt")
    return tmp_path / "c.pt"


def test_tables_are_interpolated_as_open_clip_does_and_said(weights, caplog):
    for name, other in (("larger", config(image_size=64, context_length=20)), ("smaller", config(image_size=16))):
        ours = created(f"test-adapt-{name}", other, weights).state_dict()
        theirs = open_clip.create_model(f"test-adapt-{name}", pretrained=str(weights)).state_dict()
        assert all(torch.equal(value, ours[key]) for key, value in theirs.items())
    said = [record.getMessage() for record in caplog.records if record.name == "harness.weights.adapting"]
    assert said == [
        f"{weights}: the position table visual.positional_embedding is interpolated, from 17x16 to 65x16",
        f"{weights}: the position table positional_embedding is interpolated, from 12x16 to 20x16",
        f"{weights}: the position table visual.positional_embedding is interpolated, from 17x16 to 5x16",
    ]


def test_the_table_of_a_text_tower_of_its_own_and_of_half_precision(weights, tmp_path, caplog):
    state = {name: value.half() for name, value in torch.load(weights).items()}
    save_file(state, tmp_path / "half.safetensors")
    ours = created("test-adapt-own", config(context_length=9, custom_text=True), tmp_path / "half.safetensors")
    assert ours.text.positional_embedding.shape == (9, 16)
    assert "the position table text.positional_embedding is interpolated, from 12x16 to 9x16" in caplog.text


def test_a_resnets_pooling_has_a_table_too(tmp_path, caplog):
    torch.save(created("test-adapt-resnet", config(tiny.RESNET)).state_dict(), tmp_path / "c.pt")
    made = created("test-adapt-resnet-64", config(tiny.RESNET, image_size=64), tmp_path / "c.pt")
    old = torch.load(tmp_path / "c.pt")["visual.attnpool.positional_embedding"]
    # One patch becomes four of the same.
    assert torch.allclose(made.visual.attnpool.positional_embedding, old[[0, 1, 1, 1, 1]], atol=1e-6)
    assert "visual.attnpool.positional_embedding is interpolated, from 2x256 to 5x256" in caplog.text


def test_a_mask_of_another_length_belongs_to_the_table(weights, tmp_path):
    state = torch.load(weights)
    torch.save({**state, "attn_mask": torch.full((12, 12), -torch.inf).triu(1)}, tmp_path / "masked.pt")
    created("test-adapt-masked", config(context_length=20), tmp_path / "masked.pt")
    torch.save({**state, "attn_mask": torch.zeros(12, 12)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="in it but not in the model: attn_mask"):
        created("test-adapt-masked", config(context_length=20), tmp_path / "other.pt")


def test_positions_that_are_no_square_or_of_another_width_are_refused(weights, tmp_path):
    state = torch.load(weights)
    table = state["visual.positional_embedding"]
    for other, size in ((table[:12], "12x16"), (table[:10, :8], "10x8"), (table[:1], "1x16")):
        torch.save({**state, "visual.positional_embedding": other.clone()}, tmp_path / "odd.pt")
        with pytest.raises(UserError, match=rf"positional_embedding \({size} in the file, 17x16 in the model\)"):
            created("test-adapt", config(), tmp_path / "odd.pt")


def test_a_missing_bias_is_set_and_said(weights, caplog):
    model = created("test-adapt-bias", config(init_logit_bias=-10), weights)
    assert model.logit_bias == 0
    assert f"{weights} has no logit_bias, as a CLIP has none: it is set to 0" in caplog.text


def test_nothing_is_said_of_what_fits(weights, caplog):
    load_into(created("test-adapt", config()), weights, "m")
    assert not [record for record in caplog.records if record.name == "harness.weights.adapting"]


def test_a_folder_is_read_alike(tmp_path, caplog):
    export_model(create_model(ModelConfig(model="test-adapt", config=config())), tmp_path / "e")
    file, content = (
        tmp_path / "e/open_clip_model.safetensors",
        json.loads((tmp_path / "e/open_clip_config.json").read_text()),
    )
    content["model_cfg"] |= {"init_logit_bias": -10}
    content["model_cfg"]["vision_cfg"]["image_size"] = 64
    (tmp_path / "e/open_clip_config.json").write_text(json.dumps(content))
    wrapped = {name.replace("resblocks.0.", "resblocks.0._orig_mod."): value for name, value in load_file(file).items()}
    save_file(wrapped, file)
    assert load_model(f"local-dir:{tmp_path / 'e'}").model.visual.positional_embedding.shape == (65, 16)
    assert "visual.positional_embedding is interpolated, from 17x16 to 65x16" in caplog.text
    assert "has no logit_bias" in caplog.text
