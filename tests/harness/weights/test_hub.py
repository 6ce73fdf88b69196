"""Tags and the Hub without a network: one sentence, soon; with what is needed in the cache, the model."""

import json
import os
import subprocess
import sys
import time

import open_clip
import pytest
from huggingface_hub import constants
from open_clip.pretrained import _PRETRAINED

from harness.config import ModelConfig
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model, load_model, load_trained
from harness.teachers.identity import identify
from harness.weights.source import find_source
from tests.harness import tiny

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a Hub at an address where nobody listens."""
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache, repo, source):
    """Put a folder into the cache as the Hub's client would have."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    for name in ("refs", "snapshots"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    source.rename(folder / "snapshots" / "c0ffee")


@pytest.mark.parametrize(
    ("spec", "needs"),
    [
        (("ViT-B-16", "laion400m_e32"), r"weights \(timm/vit_base_patch16_clip_224\.laion400m_e32\)"),
        (("hf-hub:nobody/nothing",), r"its config and weights \(nobody/nothing\)"),
        (("test-hub-tokenizer",), r"its tokenizer \(nobody/tokenizer\)"),
    ],
)
def test_without_a_network_it_is_said_what_was_looked_for_and_where(cache, spec, needs):
    text = {**tiny.STUDENT["text_cfg"], "hf_tokenizer_name": "nobody/tokenizer"}
    config = {**tiny.STUDENT, "text_cfg": text} if "tokenizer" in spec[0] else None
    section = ModelConfig(model=spec[0], pretrained=spec[1] if len(spec) > 1 else None, config=config)
    start = time.monotonic()
    with pytest.raises(
        UserError, match=rf"needs {needs} from the .*Hub, which does not answer at {NOWHERE}"
    ) as refused:
        create_model(section)
    assert time.monotonic() - start < 30  # the Hub's client alone tries for 47 seconds
    assert f"the cache folder {cache} does not have all of it" in str(refused.value)
    assert not constants.HF_HUB_OFFLINE


def test_nor_is_a_teachers_cache_looked_for_at_length(cache):
    with pytest.raises(UserError, match=f"which does not answer at {NOWHERE}"):
        identify(ModelConfig(model="hf-hub:nobody/nothing"))


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "harness", "export", "ViT-B-16", "--pretrained", "laion400m_e32", "--out", "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: model ViT-B-16 needs weights") and done.stderr.count("\n") == 1


def test_a_model_in_the_cache_needs_no_network(cache, tmp_path):
    model = create_model(ModelConfig(model="test-hub-cached", config=tiny.STUDENT))
    export_model(model, tmp_path / "model")
    cached(cache, "nobody/tiny", tmp_path / "model")
    loaded = load_trained("hf-hub:nobody/tiny")
    assert loaded.name == "tiny" and not loaded.is_random
    assert (loaded.model.text_projection == model.model.text_projection).all()
    known = identify(ModelConfig(model="hf-hub:nobody/tiny"))
    assert known.weights.startswith("sha256 ") and known.config == loaded.config
    with pytest.raises(UserError, match="has weights of its own on the Hub"):
        load_model("hf-hub:nobody/tiny", "openai")


def test_a_cached_config_without_weights_is_no_random_model(cache, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny.STUDENT}))
    cached(cache, "nobody/tiny", tmp_path / "model")
    with pytest.raises(UserError, match=r"needs config and weights \(nobody/tiny\) .* does not have all of it"):
        load_model("hf-hub:nobody/tiny")


def test_every_tag_that_wants_quick_gelu_names_a_model_that_has_it():
    wrong = 0
    for model, tags in _PRETRAINED.items():
        for tag in tags:
            try:
                find_source(model, tag, open_clip.get_model_config(model))
            except UserError as error:
                wrong += 1
                right = str(error).partition("; write ")[2].partition(" as the model")[0]
                assert find_source(right, tag, open_clip.get_model_config(right)).tag == tag
    assert wrong > 20


@pytest.mark.parametrize("tag", ["openai", "dfn2b", "metaclip_400m", "metaclip-fullcc"])
def test_quick_gelu_is_no_trap(tag):
    with pytest.raises(UserError, match=f"weights '{tag}' were trained with QuickGELU.*write ViT-B-16-quickgelu"):
        load_model("ViT-B-16", tag)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("laion999m", r"neither a file nor an open_clip tag of it; its tags are openai, .*laion400m_e32"),
        ("weights.pt", r"there is no such file \(looked for /.*weights\.pt\)"),
        ("runs/x/step-1", "there is no such file"),
    ],
)
def test_weights_that_are_nowhere_are_said(name, message):
    with pytest.raises(UserError, match=message):
        load_model("ViT-B-16", name)


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(UserError, match=f"are a folder; .* local-dir:{tmp_path}"):
        load_model("ViT-B-16", str(tmp_path))


def test_a_model_without_tags_says_so():
    with pytest.raises(UserError, match="open_clip has no weights of this model, so give a file"):
        load_model("ViT-T-16", "laion400m_e32")
