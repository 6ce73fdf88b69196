"""A checkpoint fits a model in every entry, or nothing is loaded and all that is amiss is told at once."""

import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from harness.checkpoint import list_checkpoints
from harness.config import ModelConfig
from harness.errors import UserError
from harness.importing import import_checkpoint
from harness.models import create_model, load_model
from harness.train import train
from harness.weights import load_into
from harness.weights.fitting import is_finite
from tests.harness import tiny


@pytest.fixture
def model():
    return create_model(ModelConfig(model="test-fitting", config=tiny.STUDENT)).model


@pytest.fixture
def other():
    torch.manual_seed(1)
    return create_model(ModelConfig(model="test-fitting", config=tiny.STUDENT)).model


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def config_of(config, **text):
    return {**config, "text_cfg": {**config["text_cfg"], **text}}


def test_it_loads_what_fits(model, other, tmp_path):
    torch.save(other.state_dict(), tmp_path / "c.pt")
    assert not equal(states(model), states(other))
    assert load_into(model, tmp_path / "c.pt", "m").renamed == []
    assert equal(states(model), states(other))


def test_half_precision_becomes_the_models(model, other, tmp_path):
    save_file({name: value.half() for name, value in states(other).items()}, tmp_path / "c.safetensors")
    load_into(model, tmp_path / "c.safetensors", "m")
    assert model.text_projection.dtype == torch.float32
    assert torch.equal(model.text_projection, other.text_projection.half().float())


def test_all_that_is_amiss_is_told_and_nothing_is_loaded(model, other, tmp_path):
    state = states(other)
    for name in [name for name in state if "visual.transformer" in name]:
        del state[name]
    state["visual.proj"] = state["visual.proj"].T[:, :5]
    state |= {"extra": torch.ones(1), "logit_bias": torch.ones(())}
    torch.save(state, tmp_path / "c.pt")
    before = states(model)
    with pytest.raises(UserError) as refused:
        load_into(model, tmp_path / "c.pt", "m")
    message = str(refused.value)
    assert (
        "does not fit model m: 12 entries are missing from it: visual.transformer.resblocks.0.ln_1.weight, " in message
    )
    assert ", ...; 2 entries are in it but not in the model: extra, logit_bias; " in message
    assert "1 entry is of another shape: visual.proj (16x5 in the file, 16x16 in the model)" in message
    assert equal(states(model), before)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(16, 16, dtype=torch.int8), r"1 entry is of another kind of number: visual\.proj \(torch\.int8\)"),
        (
            torch.ones(16, 16, dtype=torch.complex64),
            r"1 entry is of another kind of number: visual\.proj \(torch\.complex64\)",
        ),
        (torch.full((16, 16), torch.nan), r"1 entry is not finite: visual\.proj;"),
    ],
)
def test_numbers_that_are_no_weights_are_not_loaded(model, tmp_path, value, message):
    torch.save({**states(model), "visual.proj": value}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=message):
        load_into(model, tmp_path / "c.pt", "m")


@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_scales_shape_may_be_either(model, tmp_path, shape):
    torch.save({**states(model), "logit_scale": torch.full(shape, 3.0)}, tmp_path / "c.pt")
    load_into(model, tmp_path / "c.pt", "m")
    assert model.logit_scale.shape == () and model.logit_scale == 3


def test_a_built_in_text_tower_fits_a_separate_one(other, tmp_path):
    torch.save(other.state_dict(), tmp_path / "c.pt")
    config = {**tiny.STUDENT, "custom_text": True}
    custom = create_model(ModelConfig(model="test-custom", config=config, pretrained=str(tmp_path / "c.pt")))
    assert torch.equal(custom.model.text.text_projection, other.text_projection)
    assert torch.equal(custom.model.visual.proj, other.visual.proj)


def test_batch_counts_may_be_absent(tmp_path):
    model = create_model(ModelConfig(model="test-fitting-resnet", config=tiny.RESNET)).model
    state = {name: value for name, value in states(model).items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "c.pt")
    assert "counts of batches, absent in the file" in load_into(model, tmp_path / "c.pt", "m").renamed
    del state["visual.bn1.running_mean"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"missing from it: visual\.bn1\.running_mean"):
        load_into(model, tmp_path / "c.pt", "m")


def test_masks_and_positions_of_old_text_towers_are_known(model, tmp_path):
    mask, name = dict(model.named_buffers())["attn_mask"], "text.transformer.embeddings.position_ids"
    old = {**states(model), "attn_mask": mask.clone(), name: torch.arange(12)[None]}
    torch.save(old, tmp_path / "c.pt")
    assert load_into(model, tmp_path / "c.pt", "m").renamed == ["buffers that the model computes itself"]
    torch.save({**old, name: torch.arange(12)[None] + 2}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=f"1 entry is in it but not in the model: {name}"):
        load_into(model, tmp_path / "c.pt", "m")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps, with its checkpoints."""
    out = tmp_path_factory.mktemp("run")
    train(tiny.recipe(**tiny.DISTILL), out)
    return out


def test_a_checkpoint_of_a_run_is_read_as_its_export(run, tmp_path):
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    done = import_checkpoint(checkpoint, tmp_path / "out")
    assert (done.loaded.checkpoint.step, done.loaded.checkpoint.run) == (4, "tiny")
    again, exported = load_model(str(tmp_path / "out")), load_model(f"run:{run}")
    assert equal(states(again.model), states(exported.model))
    assert again.model.visual.preprocess_cfg == exported.model.visual.preprocess_cfg
    assert again.model.visual.preprocess_cfg["resize_mode"] == "squash"  # as crop: resize shows images
    named = create_model(ModelConfig(model="test-named", config=tiny.STUDENT, pretrained=str(checkpoint)))
    assert equal(states(named.model), states(exported.model))


def test_a_checkpoint_fits_the_config_beside_its_runs_export(run, tmp_path):
    checkpoint = list_checkpoints(run / "checkpoints")[-1]
    config = run / "export" / "open_clip_config.json"
    content = json.loads(config.read_text())
    content["preprocess_cfg"] |= {"mean": [0.5, 0.4, 0.3], "interpolation": "bilinear", "resize_mode": "squash"}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(content))
    import_checkpoint(checkpoint, tmp_path / "out", config=config)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    view = model.visual.preprocess_cfg
    assert (tuple(view["mean"]), view["interpolation"], view["resize_mode"]) == ((0.5, 0.4, 0.3), "bilinear", "squash")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "not an open_clip config: expected a JSON object"),
        ("{", "cannot be read"),
        ('{"embed_dim": 3}', "does not describe an open_clip model"),
        ('{"embed_dim": 3, "vision_cfg": {"layer": 1}, "text_cfg": {}}', "did you mean layers"),
        ('{"embed_dim": 3, "vision_cfg": 1, "text_cfg": {}}', "must be a mapping"),
    ],
)
def test_a_config_file_that_is_none_is_said(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "out", config=tmp_path / "config.json")


def test_the_checkpoints_model_is_said_once(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "c.pt")
    with pytest.raises(UserError, match="does not say which model it is of; give --model NAME or --config FILE"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "out")
    with pytest.raises(UserError, match="give one of them"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "out", model="RN50", config=tmp_path / "x.json")


@pytest.mark.parametrize("recipe", ["[: no yaml", "text", "student: text", "a: 1"])
def test_a_checkpoint_whose_recipe_is_none_says_nothing(model, tmp_path, recipe):
    torch.save({"state_dict": model.state_dict(), "recipe": recipe}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="does not say which model it is of"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "out")


def test_a_checkpoint_is_not_lost_to_the_folder_it_lies_in(run, tmp_path):
    folder = shutil.copytree(run / "export", tmp_path / "models" / "x")
    checkpoint = shutil.copy(list_checkpoints(run / "checkpoints")[-1], folder / "c.pt")
    with pytest.raises(UserError, match="which would be replaced; give another folder"):
        import_checkpoint(checkpoint, folder)
    assert checkpoint.is_file()


def test_what_does_not_fit_leaves_no_folder(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "c.pt")
    with pytest.raises(UserError, match="does not fit model timm-mobilevit_xxs"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "out", model="timm-mobilevit_xxs")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_finite_is_what_torch_says(dtype):
    for value in (float("nan"), float("inf"), -float("inf")):
        weights = torch.randn(3, 5)
        assert is_finite(weights.to(dtype).t())
        weights[1, 2] = value
        assert not is_finite(weights.to(dtype).t())
    assert is_finite(torch.empty(0, dtype=dtype))
    assert is_finite(torch.tensor(1.0).to(dtype))
    assert not is_finite(torch.tensor(float("nan")).to(dtype))
