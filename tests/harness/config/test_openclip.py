"""The keys of open_clip's model configs, read from its source, are those of the installed open_clip."""

import dataclasses
import inspect

import open_clip
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from harness.config import ModelConfig
from harness.config.openclip import known_keys


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
