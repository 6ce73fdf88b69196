"""clipkd import, as a user runs it."""

import shlex

import open_clip
import pytest
import torch
import yaml
from typer.testing import CliRunner

from harness.cli.app import app
from harness.config import ModelConfig
from harness.models import create_model
from tests.harness import tiny


@pytest.fixture
def clipkd():
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_says_what_was_read_and_how_to_use_it(clipkd, golden_dir, tmp_path):
    config = golden_dir / "released_tiny_vit_config.json"
    out = tmp_path / "it's ünder, a space"
    done = clipkd("import", golden_dir / "released_tiny_vit.pt", "--config", config, "--out", out)
    assert done.exit_code == 0
    wrote, read, *uses = done.output.splitlines()
    assert wrote == f"wrote {out}: config-released_tiny_vit_config, image tower 0.03 M parameters, the rest 0.03 M"
    assert read.endswith("released_tiny_vit.pt: 62 entries, epoch 3, run 2023_01_01-tiny")
    assert [line.partition(":")[0] for line in uses] == ["evaluate it", "teach with it, in a recipe", "elsewhere"]
    assert shlex.split(uses[0])[-3] == str(out)
    assert yaml.safe_load(uses[1].partition(": ")[2]) == {"teacher": {"model": f"local-dir:{out}"}}
    command = uses[-1].partition(": ")[2]
    assert eval(command, {"open_clip": open_clip})[0].visual.proj.shape == (32, 32)


def test_half_is_passed_on_and_changes_are_told(clipkd, tmp_path):
    model = create_model(ModelConfig(model="test-import", config=tiny.STUDENT)).model
    mask = dict(model.named_buffers())["attn_mask"]
    torch.save({**model.state_dict(), "attn_mask": mask}, tmp_path / "c.pt")
    from harness.zoo import register_config

    register_config("test-import-named", tiny.STUDENT)
    done = clipkd("import", tmp_path / "c.pt", "--model", "test-import-named", "--out", tmp_path / "out", "--fp16")
    assert "changed: buffers that the model computes itself" in done.output
    weights = open_clip.factory.load_state_dict(str(tmp_path / "out" / "open_clip_model.safetensors"))
    assert weights["visual.proj"].dtype == torch.float16


def test_what_is_amiss_is_an_error_and_not_a_trace(clipkd, tmp_path):
    done = clipkd("import", tmp_path / "c.pt", "--model", "ViT-T-61", "--out", tmp_path / "out")
    assert done.exit_code == 2 and "did you mean ViT-T-16" in done.output
