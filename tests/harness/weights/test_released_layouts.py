"""What the released code saved: each of its models' names and shapes, and one whole checkpoint with its embeddings."""

import gzip
import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from timm.models.swin_transformer import checkpoint_filter_fn

from harness.config import ModelConfig
from harness.importing import import_checkpoint
from harness.models import create_model
from harness.weights.fitting import differences
from harness.weights.renames import apply_rules
from tests.grid import tiers

SWIN = "timm-swin_tiny_patch4_window7_224"
MOBILENET = "timm_mobilenetv3_small_100"
TRUNK = "visual.trunk."
LARGE = ("RN101", "timm-swin_tiny_patch4_window7_224")
NAMES = (
    "ViT-T-16",
    "ViT-B-16",
    "RN50",
    "RN101",
    "timm_resnet18",
    "timm-mobilevit_s",
    "timm-mobilevit_xxs",
    SWIN,
    "timm-efficientnet-b0",
    MOBILENET,
)


@pytest.fixture(scope="module")
def released(golden_dir):
    with gzip.open(golden_dir / "released_checkpoint_keys.json.gz", "rt") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def swin():
    """Not on the meta device: its masks are compared by value."""
    return CLIP(**open_clip.get_model_config(SWIN))


def tensors(shapes, model):
    """A state dict that weighs nothing, but for what the model computes itself, which has the values of the model."""
    derived = {name: buffer for name, buffer in model.named_buffers() if name not in model.state_dict()}
    return {name: derived.get(name, torch.empty(shape, device="meta")) for name, shape in shapes.items()}


def test_the_ten_are_those_we_know(released):
    assert set(released) == set(NAMES)


@pytest.mark.parametrize("name", tiers(NAMES, {*NAMES} - {*LARGE}))
def test_every_entry_has_a_place_and_every_place_an_entry(released, name, request):
    if name == SWIN:
        model = request.getfixturevalue("swin")
    else:
        with torch.device("meta"):
            model = CLIP(**open_clip.get_model_config(name))
    before = tensors(released[name], model)
    state, done = apply_rules(before, model)
    assert differences(state, model.state_dict()) == []
    if name != SWIN:
        model.load_state_dict(state, strict=True, assign=True)
    given = {id(value) for value in before.values()}
    made = {name for name, value in state.items() if id(value) not in given}
    assert made == ({"visual.trunk.classifier.bias"} if name == MOBILENET else set())
    assert bool(done) == (name in (SWIN, MOBILENET))


def test_swins_entries_go_where_timm_itself_puts_them(released, swin):
    shapes = {name: shape for name, shape in released[SWIN].items() if name.startswith(TRUNK)}
    before = tensors(shapes, swin)
    ours, _ = apply_rules(dict(before), swin)
    theirs = checkpoint_filter_fn(
        {name.removeprefix(TRUNK): value for name, value in before.items()}, swin.visual.trunk
    )
    assert {name.removeprefix(TRUNK) for name in ours} == set(theirs)
    assert all(ours[TRUNK + name] is value for name, value in theirs.items())


def test_swins_renaming_keeps_order_and_shape_and_touches_nothing_else(released, swin):
    before = tensors(released[SWIN], swin)
    after, _ = apply_rules(dict(before), swin)
    source = {id(value): name for name, value in before.items()}
    moved = {source[id(value)]: name for name, value in after.items() if source[id(value)] != name}
    assert list(moved.values()) == [
        f"visual.trunk.layers.{stage}.downsample.{part}"
        for stage in (1, 2, 3)
        for part in ("norm.weight", "norm.bias", "reduction.weight")
    ]
    assert all(int(new[20]) == int(old[20]) + 1 and new[21:] == old[21:] for old, new in moved.items())
    gone = set(released[SWIN]) - set(moved) - set(after)
    assert {name.rpartition(".")[2] for name in gone} == {"attn_mask", "relative_position_index"}


def test_a_mask_of_another_value_is_not_dropped(swin):
    name = "visual.trunk.layers.0.blocks.1.attn_mask"
    mask = dict(swin.named_buffers())[name]
    assert apply_rules({name: mask.clone()}, swin)[0] == {}
    assert name in apply_rules({name: mask + 1}, swin)[0]


@pytest.mark.slow
def test_a_renamed_swin_computes_what_it_did(swin):
    """Written with the old names, read back: the same embeddings."""
    old = {}
    for name, value in swin.state_dict().items():
        stage = name.removeprefix("visual.trunk.layers.").partition(".downsample.")
        old[f"visual.trunk.layers.{int(stage[0]) - 1}.downsample.{stage[2]}" if stage[1] else name] = value.clone()
    other = CLIP(**open_clip.get_model_config(SWIN)).eval()
    other.load_state_dict(apply_rules(old, other)[0])
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(swin.eval().encode_image(image), other.encode_image(image))


def test_a_mobilenets_projection_is_the_same_map():
    """A bias-free projection behind the pooled 1024 channels, as the released code had it."""
    config = {**open_clip.get_model_config(MOBILENET), "embed_dim": 8}
    model = CLIP(**{**config, "text_cfg": {**config["text_cfg"], "layers": 1, "width": 16, "heads": 2}}).eval()
    weight = torch.randn(8, 1024)
    mine = {name: value for name, value in model.state_dict().items() if ".classifier." not in name}
    model.load_state_dict(apply_rules({**mine, "visual.head.proj.weight": weight}, model)[0])
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        trunk = model.visual.trunk
        pooled = trunk.forward_head(trunk.forward_features(image), pre_logits=True)
        assert pooled.shape == (1, 1024)
        torch.testing.assert_close(model.encode_image(image), pooled @ weight.T)


@pytest.fixture(scope="module")
def tiny_released(golden_dir):
    config = json.loads((golden_dir / "released_tiny_vit_config.json").read_text())
    with np.load(golden_dir / "released_tiny_vit_expected.npz") as arrays:
        return golden_dir / "released_tiny_vit.pt", config, {key: torch.from_numpy(arrays[key]) for key in arrays}


def check_embeddings(outputs, expected):
    for name in ("image_features", "text_features", "logit_scale"):
        torch.testing.assert_close(outputs[name], expected[name], rtol=0, atol=1e-6)


def test_a_whole_training_checkpoint_gives_its_embeddings(tiny_released):
    path, config, expected = tiny_released
    loaded = create_model(ModelConfig(model="test-released-tiny", config=config, pretrained=str(path)))
    assert not loaded.is_random
    with torch.no_grad():
        check_embeddings(loaded.model.eval()(expected["image"], expected["text"]), expected)


def test_imported_it_gives_them_in_stock_open_clip(tiny_released, golden_dir, tmp_path):
    path, _, expected = tiny_released
    config = golden_dir / "released_tiny_vit_config.json"
    done = import_checkpoint(path, tmp_path / "out", config=config)
    assert (done.loaded.checkpoint.epoch, done.loaded.checkpoint.run) == (3, "2023_01_01-tiny")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}", output_dict=True)
    with torch.no_grad():
        check_embeddings(model.eval()(expected["image"], expected["text"]), expected)
