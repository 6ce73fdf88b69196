"""A key that is accepted has its effect, or is refused: each key of a model config, and of a recipe."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from huggingface_hub import constants

from harness.config import ModelConfig, RecipeError, dump_recipe, load_recipe, parse_recipe, read_run_recipe
from harness.config.model_effects import idle_model_keys
from harness.config.openclip import known_keys
from harness.errors import UserError
from harness.models import create_model
from harness.smoke_test import forward_smoke_test
from tests.grid import tiers
from tests.harness import tiny

VISION = {
    "layers": 2, "width": 32, "head_width": 4, "mlp_ratio": 2.0, "patch_size": 32, "image_size": 64,
    "ls_init_value": 0.1, "patch_dropout": 0.5, "attentional_pool": True, "attn_pooler_queries": 4,
    "attn_pooler_heads": 2, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d", "final_ln_after_pool": True,
    "pool_type": "avg", "output_tokens": True, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 0.1},
    "block_type": "custom", "qk_norm": True, "scaled_cosine_attn": True, "scale_heads": True,
    "scale_attn_inner": True, "scale_attn": True, "scale_fc": True, "timm_model_name": "test_resnet",
    "timm_model_pretrained": True, "timm_pool": "max", "timm_proj": "mlp", "timm_proj_bias": True, "timm_drop": 0.5,
    "timm_drop_path": 0.5,
}  # fmt: skip
TEXT = {
    "context_length": 16, "vocab_size": 50000, "hf_tokenizer_name": "shipped:openmoji",
    "tokenizer_mode": "clips", "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 32, "heads": 4, "layers": 2,
    "mlp_ratio": 2.0, "ls_init_value": 0.1, "embed_cls": True, "pad_id": 1, "eos_id": 3, "no_causal_mask": True,
    "final_ln_after_pool": True, "pool_type": "last", "proj_bias": True, "proj_type": "none", "output_tokens": True,
    "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 0.1}, "block_type": "custom", "qk_norm": True,
    "scaled_cosine_attn": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True,
    "hf_model_name": "no/such", "hf_model_pretrained": False, "hf_proj_type": "linear", "hf_pooler_type": "max_pooler",
}  # fmt: skip
TOP = {
    "embed_dim": 24, "quick_gelu": True, "init_logit_scale": 1.0, "init_logit_bias": -10, "nonscalar_logit_scale": True,
    "output_dict": False, "custom_text": True, "multimodal_cfg": {}, "vision_cfg": {}, "text_cfg": {},
}  # fmt: skip
TIMM = {"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "linear", "image_size": 160}
ROBERTA = {
    "model_type": "roberta", "vocab_size": 50000, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 40,
}  # fmt: skip
BASES = {
    "vit": tiny.STUDENT,
    "pooler": {**tiny.STUDENT, "vision_cfg": {**tiny.STUDENT["vision_cfg"], "attentional_pool": True}},
    "text of its own": {**tiny.STUDENT, "custom_text": True, "quick_gelu": True},
    "resnet": tiny.RESNET,
    "timm": {**tiny.STUDENT, "vision_cfg": TIMM},
    "timm's own projection": {**tiny.STUDENT, "vision_cfg": {**TIMM, "timm_proj": ""}},
}


def with_key(base, place, value):
    config, (*sections, key) = copy.deepcopy(base), place
    for section in sections:
        config = config[section]
    config[key] = value
    return config if not sections else {**copy.deepcopy(base), sections[0]: config}


def other_than(present, value):
    """The value, or its opposite where a flag has it already."""
    return not value if isinstance(value, bool) and present is value else value


def plain(module):
    """What a module is configured with, and modules do not show."""
    kinds = bool | int | float | str | tuple | None
    return {name: value for name, value in vars(module).items() if isinstance(value, kinds) and name != "training"}


def built(config):
    """All that a config decides on: modules, weights, what they make of a batch in training, and tokens.

    Raises:
        UserError: it is refused.
    """
    torch.manual_seed(0)
    loaded = create_model(ModelConfig(model="test-effects", config=config))
    forward_smoke_test(loaded, "student")
    tokens = loaded.tokenizer(["A photo -- of a Cat!", "x"])
    images = torch.linspace(-1, 1, 2 * 3 * loaded.image_size**2).reshape(2, 3, loaded.image_size, -1)
    with torch.no_grad():
        outputs = loaded.model.train()(images, tokens)
    shown = [repr(loaded.model), str(loaded.preprocess), [plain(module) for module in loaded.model.modules()]]
    return shown, [*loaded.model.state_dict().values(), *outputs.values(), tokens]


def same(first, second) -> bool:
    tensors = zip(first[1], second[1], strict=False)
    return first[0] == second[0] and len(first[1]) == len(second[1]) and all(a.equal(b) for a, b in tensors)


def is_refused(config) -> bool:
    return any(True for _ in idle_model_keys(config))


def test_each_key_of_open_clips_is_changed_here():
    for section, values in (("", TOP), ("vision_cfg", VISION), ("text_cfg", TEXT)):
        assert known_keys()[section] <= values.keys()


def text_tower_of_the_hub(folder):
    """A config whose text tower is a small one of transformers', with random weights."""
    (folder / "config.json").write_text(json.dumps(ROBERTA))
    text = {"hf_model_name": str(folder), "hf_model_pretrained": False, "hf_tokenizer_name": "shipped:openmoji"}
    return {**tiny.STUDENT, "custom_text": True, "text_cfg": {**text, "context_length": 12}}


@pytest.mark.parametrize("name", tiers([*BASES, "text tower of the Hub"], {"vit"}))
def test_each_key_of_a_model_config_makes_a_difference_or_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    base, idle = BASES.get(name) or text_tower_of_the_hub(tmp_path), []
    before = built(base)
    assert same(before, built(base)) and not is_refused(base)
    for section, values in (("", TOP), ("vision_cfg", VISION), ("text_cfg", TEXT)):
        for key, value in values.items():
            place = (section, key) if section else (key,)
            changed = with_key(base, place, other_than(base.get(section, base).get(key), value))
            if key in ("vision_cfg", "text_cfg") or changed == base or is_refused(changed):
                continue
            try:
                if same(before, built(changed)):
                    idle.append(place)
            except (UserError, ValueError):
                continue
    assert idle == []


def refused(*changes):
    with pytest.raises(RecipeError) as caught:
        load_recipe("smoke", changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CSV = "data.train names a CSV or TSV file"


@pytest.mark.parametrize(
    ("change", "when", "needs"),
    [
        ("data.crop_scale=[0.5, 1.0]", "data.crop is random_resized", "data.crop=random_resized"),
        ("data.csv_separator=;", CSV, "data.train=x.CSV"),
        ("data.csv_image_key=x", CSV, "data.train=[{path: 'x.tsv,y.tsv'}]"),
        ("data.csv_caption_key=x", CSV, "data.train=x.csv"),
        ("loss.mask_ratio=0.5", "loss.weights.mfd is above 0", ""),
        ("loss.mask_kind=pixels", "loss.weights.mfd is above 0", ""),
        ("train.max_nonfinite=3", "train.on_nonfinite is skip", "train.on_nonfinite=skip"),
        ("train.flush_denormal=true", "train.device is cpu or auto", "train.device=auto"),
        ("eval.root=x", "eval.suite is given", "eval.suite=quick"),
        ("eval.online=[zeroshot]", "eval.every is given", "eval.every=2"),
        ("loss.options={affinity: {student_scale: 3}}", "loss.weights.affinity is above 0", "loss.weights.affinity=1"),
        ("student.config.vision_cfg.timm_pool=max", "vision_cfg.timm_model_name is given", ""),
        ("teacher.config.text_cfg.eos_id=3", "text_cfg.pool_type is eos", "teacher.config.text_cfg.pool_type=eos"),
    ],
)
def test_a_key_without_effect_is_refused_and_says_what_it_needs(change, when, needs):
    idle = ["loss.weights.mfd=0", "loss.weights.affinity=0", "schedule.kind=constant", "train.device=cuda"]
    key = change.partition("=")[0].replace("loss.options", "loss.options.affinity")
    says = f"--set {change}: {key} has no effect: it is read only where {when}; remove it, or change that"
    assert refused(*idle, change) == says
    if needs:
        load_recipe("smoke", [*idle, change, needs])
    elif "mask" in change:
        load_recipe("smoke", [change])


@pytest.mark.parametrize("change", ["data.root=x", "schedule.min_lr=1e-4"])
def test_two_that_have_always_been_taken_are_warned_of(change, caplog):
    load_recipe("smoke", ["schedule.kind=constant", change])
    key = change.partition("=")[0]
    assert [record.getMessage() for record in caplog.records if f"{key} has no effect" in record.getMessage()]


def test_of_one_teacher_the_weight_and_of_none_the_cache_have_no_effect():
    alone = ["teacher=null", "loss.weights={contrastive: 1}", "teacher_cache.views=2"]
    assert "teacher_cache.views has no effect: it is read only where there is a teacher" in refused(*alone)
    one = ["teacher=null", "teachers=[{model: ViT-B-32, weight: 2}]"]
    assert "teachers[0].weight has no effect: it is read only where there are several teachers" in refused(*one)
    pretrained = [f"student.config.vision_cfg={TIMM | {'timm_model_pretrained': True}}", "student.pretrained=x.pt"]
    assert "timm_model_pretrained has no effect: it is read only where `pretrained`" in refused(*pretrained)


def test_a_run_of_before_is_read_as_it_is(tmp_path):
    """Its folder and its checkpoints hold the whole recipe, which an older version has accepted."""
    recipe = load_recipe("smoke").model_copy(deep=True)
    text = dump_recipe(recipe).replace("mask_ratio: 0.75", "mask_ratio: 0.5").replace("mfd: 100", "mfd: 0")
    (tmp_path / "recipe.yaml").write_text(text)
    assert read_run_recipe(tmp_path).loss.mask_ratio == parse_recipe(text, "x").loss.mask_ratio == 0.5
    with pytest.raises(RecipeError, match=r"recipe\.yaml, line \d+: loss\.mask_ratio has no effect"):
        load_recipe(tmp_path / "recipe.yaml")


def test_towers_begin_with_their_own_weights_where_the_config_says_so(monkeypatch, caplog):
    """timm's loader is asked; here it fills in a number instead of downloading."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        "timm.models._builder.load_pretrained", lambda model, **_: next(model.parameters()).data.fill_(3)
    )
    caplog.set_level("INFO", "harness")
    config = {**tiny.STUDENT, "vision_cfg": {**TIMM, "timm_model_name": "test_resnet", "timm_model_pretrained": True}}
    section = ModelConfig(model="test-towers", config=config)
    assert (next(create_model(section).model.visual.parameters()) == 3).all()
    assert "test-towers: its image tower begins with timm's weights of test_resnet" in caplog.text
    assert not (next(create_model(section, pretrained_towers=False).model.visual.parameters()) == 3).all()
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"needs timm's weights of its image tower \(test_resnet\) from the"):
        create_model(section)
