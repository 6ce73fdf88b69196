"""The keys of open_clip's model configs, read from its source, are those of the installed open_clip."""

import dataclasses
import inspect

import open_clip
import pytest
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from harness.config import ModelConfig, RecipeError, load_recipe
from harness.config.openclip import defaults, known_keys


def test_keys_of_the_towers_are_the_fields_of_the_dataclasses():
    for tower, cls in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        assert known_keys()[tower] == {field.name for field in dataclasses.fields(cls)}


def test_keys_of_a_config_are_the_arguments_of_clip_and_what_shipped_configs_use():
    used = {key for name in open_clip.list_models() for key in open_clip.get_model_config(name)}
    arguments = set(inspect.signature(CLIP.__init__).parameters)
    assert known_keys()[""] == used | arguments - {"self", "cast_dtype"}


def test_every_config_that_comes_with_open_clip_can_be_written_inline():
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        assert ModelConfig(model="mine", config=config).config == config


def test_defaults_of_the_towers_are_those_of_the_dataclasses():
    for tower, cls in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        assert defaults()[tower] == dataclasses.asdict(cls())


def refused(key: str, value: str) -> str:
    """What is said of the shipped smoke recipe's student with another value."""
    with pytest.raises(RecipeError) as caught:
        load_recipe("smoke", [f"student.config.{key}={value}"])
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"--set student.config.{key}={value}: student.config.")


VISION_SIZES = ["width", "layers", "head_width", "patch_size", "image_size"]
TEXT_SIZES = ["width", "layers", "heads", "context_length", "vocab_size"]


@pytest.mark.parametrize(
    "key", ["embed_dim", *(f"vision_cfg.{k}" for k in VISION_SIZES), *(f"text_cfg.{k}" for k in TEXT_SIZES)]
)
def test_sizes_are_whole_and_positive(key):
    for value in ("0", "-8", "1.5", "true", "null", "'8'", "[]", "[1, 2, 0]"):
        assert refused(key, value).startswith(f"{key} must be a whole number above 0")
    assert refused(key, "20000000") == f"{key} must be at most 16777216, got 20000000"
    assert refused(key, ".inf") == f"{key} must be a finite number, got inf"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("vision_cfg.patch_size", "[8, 0]", "must be a whole number above 0 or a list of 2, got [8, 0]"),
        ("vision_cfg.layers", "[1, 1, 1, -1]", "must be a whole number above 0 or a list of 4, got [1, 1, 1, -1]"),
        ("vision_cfg.head_width", "12", "must divide the width 32, got 12"),
        ("text_cfg.heads", "3", "must divide the width 32, got 3"),
        ("vision_cfg.image_size", "4", "must be at least patch_size, 8, got 4"),
        ("vision_cfg.mlp_ratio", "0", "must be a number above 0, got 0"),
        ("vision_cfg.patch_dropout", "1", "must be a number from 0 to below 1, got 1"),
        ("init_logit_scale", ".nan", "must be a finite number, got nan"),
    ],
)
def test_numbers_that_no_model_can_have(key, value, says):
    assert refused(key, value) == f"{key} {says}"


def test_defaults_that_do_not_fit_are_named():
    says = "vision_cfg.head_width must divide the width 8, got open_clip's default of 64"
    assert says in refused("vision_cfg", "{image_size: 32, layers: 1, width: 8}")


def test_a_width_that_open_clips_default_rounds_to_whole_heads_is_fine():
    made = load_recipe("smoke", ["student.config.vision_cfg={image_size: 32, layers: 1, width: 96, patch_size: 8}"])
    assert made.student.config["vision_cfg"]["width"] == 96
    says = "vision_cfg.head_width must divide the width 200, got open_clip's default of 64"
    assert says in refused("vision_cfg", "{image_size: 32, layers: 1, width: 200, patch_size: 8}")


def test_a_resnet_and_sides_that_differ_are_fine():
    made = ["student.config.vision_cfg.layers=[1, 1, 1, 1]", "student.config.vision_cfg.patch_size=null"]
    assert load_recipe("smoke", made).student.config["vision_cfg"]["layers"] == [1, 1, 1, 1]
    assert load_recipe("smoke", ["student.config.vision_cfg.image_size=[32, 48]"])
