"""Models are found by what a user would write, and not found in one sentence."""

import json
import re

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from harness.config import ModelConfig
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model, create_student, load_model, load_trained
from harness.smoke_test import forward_smoke_test
from harness.weights import read_checkpoint
from harness.weights.tensor_files import tensor_records
from tests.harness import tiny
from tests.harness.weights.damage import flip, flip_largest_record


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model(ModelConfig(model="test-models-tiny", config=tiny.STUDENT))


@pytest.fixture
def run(model, tmp_path):
    export_model(model, tmp_path / "run" / "export")
    return tmp_path / "run"


def same_weights(a, b) -> bool:
    theirs = b.model.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.model.state_dict().items())


def test_an_inline_config_is_what_open_clip_builds(model):
    assert (model.image_size, model.embed_dim, model.name) == (32, 16, "test-models-tiny")
    assert model.tokenizer(["a cat"]).shape == (1, 12)
    assert model.parameters["total"] == sum(p.numel() for p in model.model.parameters())


@pytest.mark.parametrize("form", ["run:{}", "{}", "{}/export", "local-dir:{}/export"])
def test_every_way_to_name_a_run_loads_it(model, run, form):
    loaded = load_model(form.format(run))
    assert same_weights(model, loaded)
    assert (loaded.image_size, loaded.mean, loaded.std) == (model.image_size, model.mean, model.std)
    assert loaded.name == "run"


def test_a_folder_with_an_inline_models_name_does_not_get_in_its_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test-models-tiny").mkdir()
    assert create_model(ModelConfig(model="test-models-tiny", config=tiny.STUDENT)).embed_dim == 16


def test_weights_beside_a_folder_that_has_its_own_are_refused(run):
    with pytest.raises(UserError, match="a folder with weights of its own"):
        load_model(str(run), pretrained="openai")


def test_a_folder_that_only_shares_its_name_with_a_model_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RN50-nonsense").mkdir()
    with pytest.raises(UserError, match="neither a folder nor an open_clip model"):
        load_model("RN50-nonsense")


def test_random_weights_are_known_as_such(model, run):
    assert model.is_random
    assert not load_model(str(run)).is_random


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "the key model_cfg is missing"),
        ("not json", "not valid JSON"),
        ('{"model_cfg": 3}', "model_cfg must be a mapping, got 3"),
        ('{"model_cfg": {"embed_dim": 8, "vision_cfg": {}}}', "the key model_cfg.text_cfg is missing"),
        ("[" * 100_000, "it is nested deeper"),
    ],
)
def test_a_broken_config_is_said(run, text, says):
    (run / "export" / "open_clip_config.json").write_text(text)
    with pytest.raises(UserError, match=rf"open_clip_config.json is not an open_clip config \({says}"):
        load_model(str(run))


def test_truncated_weights_are_said(run):
    path = run / "export" / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="open_clip could not make model"):
        load_model(str(run))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_flipped_bit_in_an_export_is_named_by_its_tensor(run, checkpoint):
    path = run / "export" / "open_clip_model.safetensors"
    flip(path, path.stat().st_size - 1)
    load_file(path)  # says nothing
    (name,) = [record.name for record in tensor_records(path) if not record.is_whole()]
    offer = "copy or download it again"
    if checkpoint:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "latest.pt").touch()
        offer = f"`clipkd import {run}/checkpoints/latest.pt --out {run}/export` writes it anew"
    says = re.escape(f"{path} is damaged: its record {name} does not match its checksum; {offer}")
    with pytest.raises(UserError, match=says):
        load_model(str(run))
    with pytest.raises(UserError, match=re.escape(f"its record {name} does not match its checksum")):
        read_checkpoint(path)


def test_a_flipped_bit_in_a_folders_archive_is_named_too(run):
    path = run / "export" / "open_clip_model.safetensors"
    state = load_file(path)
    path.unlink()
    torch.save(state, run / "export" / "open_clip_pytorch_model.bin")
    load_model(str(run))
    record = flip_largest_record(run / "export" / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=f"is damaged: its record {record} does not match its checksum"):
        load_model(str(run))


def test_an_export_of_an_older_version_has_no_checksums_and_loads(model, run):
    path = run / "export" / "open_clip_model.safetensors"
    save_file(load_file(path), run / "older", metadata={"format": "pt"})
    (run / "older").replace(path)
    assert tensor_records(path) == []
    assert same_weights(model, load_model(str(run)))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(run, value):
    path = run / "export" / "open_clip_model.safetensors"
    state = load_file(path)
    state["visual.proj"][0, 0] = value
    save_file(state, run / "broken", metadata={"format": "pt"})
    (run / "broken").replace(path)
    with pytest.raises(UserError, match=r"hold NaN or infinite values: 1 entry is not finite: visual\.proj; take"):
        load_model(str(run))


def test_building_twice_gives_the_seeds_weights():
    config = ModelConfig(model="test-models-tiny", config=tiny.STUDENT)
    torch.manual_seed(1)
    first = create_model(config)
    torch.manual_seed(1)
    assert same_weights(first, create_model(config))
    assert not same_weights(first, create_model(config))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B-61", "neither a folder nor an open_clip model"),
        ("run:nowhere", "nowhere holds no finished run"),
        ("local-dir:nowhere", "open_clip_config.json is missing"),
        ("shipped:nothing", "comes with this package"),
    ],
)
def test_what_cannot_be_found_is_said(spec, message):
    with pytest.raises(UserError, match=message):
        load_model(spec)


def test_a_folder_without_weights_is_no_random_model(run):
    (run / "export" / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        load_model(f"run:{run}")


def test_weights_of_another_shape_are_refused(run):
    path = run / "export" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["embed_dim"] = 8
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="size mismatch"):
        load_model(f"run:{run}")


def test_a_models_own_normalisation_is_kept(run):
    path = run / "export" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"] |= {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    path.write_text(json.dumps(config))
    loaded = load_model(f"run:{run}")
    assert (loaded.mean, loaded.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(("crop", "mode"), [("resize", "squash"), ("random_resized", "shortest")])
def test_a_student_has_the_view_that_it_is_trained_on(run, tmp_path, crop, mode):
    """Whether it is described inline or named: `crop: resize` makes a square of every image."""
    for number, section in enumerate(({}, {"student": {"model": str(run), "config": None}})):
        student = create_student(tiny.recipe(data={"crop": crop}, **section))
        export_model(student, tmp_path / str(number))
        config = json.loads((tmp_path / str(number) / "open_clip_config.json").read_text())
        assert config["preprocess_cfg"]["resize_mode"] == mode
        wide = Image.new("RGB", (96, 32), "black")
        wide.paste("white", (0, 0, 32, 32))
        cut_off = bool((student.preprocess(wide) == student.preprocess(Image.new("RGB", (32, 32)))).all())
        assert cut_off == (crop == "random_resized")


def test_random_weights_are_not_measured(run):
    with pytest.raises(UserError, match="RN50 is an open_clip name without weights"):
        load_trained("RN50")
    assert load_trained(str(run)).name == "run"


def test_a_config_that_contradicts_itself_is_found_before_any_data():
    """What the recipe's own check cannot see: the tokenizer has more words than the model."""
    config = {**tiny.STUDENT, "text_cfg": {**tiny.STUDENT["text_cfg"], "vocab_size": 100}}
    loaded = create_model(ModelConfig(model="test-models-contradiction", config=config))
    with pytest.raises(UserError, match=r"student test-models-contradiction cannot embed .*index out of range"):
        forward_smoke_test(loaded, "student")


def test_a_sound_model_passes_and_keeps_its_mode(model):
    model.model.train()
    forward_smoke_test(model, "student")
    assert model.model.training


def test_a_missing_checkpoint_is_said():
    with pytest.raises(UserError, match=r"weights 'nowhere\.pt' of RN50: there is no such file"):
        load_model("RN50", pretrained="nowhere.pt")
