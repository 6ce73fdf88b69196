"""The paper's eleven models: found by the released code's names, of the known sizes, and loaded by stock open_clip."""

import copy
import subprocess
import sys
from dataclasses import replace

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from harness.config import ModelConfig
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model, load_model
from harness.smoke_test import forward_smoke_test
from harness.zoo import nearest
from tests.grid import tiers
from tests.harness import tiny

# Millions of parameters: image tower, the rest.
SIZES = {
    "ViT-L-14": (303.97, 123.65),
    "ViT-B-16": (86.19, 63.43),
    "RN50": (38.32, 63.69),
    "RN101": (56.26, 63.43),
    "ViT-T-16": (5.62, 40.49),
    "timm-mobilevit_s": (5.27, 40.49),
    "timm-mobilevit_xxs": (1.11, 40.49),
    "timm-swin_tiny_patch4_window7_224": (27.91, 40.49),
    "timm_mobilenetv3_small_100": (2.04, 40.49),
    "timm-efficientnet-b0": (4.66, 40.49),
    "timm_resnet18": (11.44, 40.49),
}
OURS = list(SIZES)[4:]
LARGE = ("timm-swin_tiny_patch4_window7_224", "timm-efficientnet-b0")
MOBILENET = "timm_mobilenetv3_small_100"
SMALL_TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def with_small_text(name: str) -> ModelConfig:
    """A model of the paper whose text tower weighs next to nothing."""
    config = {**open_clip.get_model_config(name), "embed_dim": 32, "text_cfg": SMALL_TEXT}
    return ModelConfig(model=f"test-zoo-{name}", config=config)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_papers(name):
    with torch.device("meta"):
        model = CLIP(**open_clip.get_model_config(name))
    image = sum(p.numel() for p in model.visual.parameters())
    rest = sum(p.numel() for p in model.parameters()) - image
    assert (round(image / 1e6, 2), round(rest / 1e6, 2)) == SIZES[name]


@pytest.mark.parametrize("name", tiers(OURS, {*OURS} - {*LARGE}))
def test_a_model_of_ours_runs_and_stock_open_clip_loads_its_export(name, tmp_path):
    loaded = create_model(with_small_text(name))
    # Batch statistics other than a fresh model's, so that a lost one shows.
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    export_model(loaded, tmp_path / "export")
    stock, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'export'}")
    images, tokens = torch.randn(1, 3, 224, 224), loaded.tokenizer(["a cat"])
    with torch.no_grad():
        ours, theirs = loaded.model.eval()(images, tokens), stock.eval()(images, tokens)
    assert torch.equal(ours["image_features"], theirs[0])
    assert torch.equal(ours["text_features"], theirs[1])
    assert (loaded.image_size, ours["image_features"].shape) == (224, (1, 32))


def test_a_name_is_found_as_open_clips_own_are():
    loaded = load_model("timm-mobilevit_xxs")
    assert (loaded.name, loaded.embed_dim, loaded.is_random) == ("timm-mobilevit_xxs", 512, True)
    assert loaded.tokenizer(["a cat"]).shape == (1, 77)


@pytest.mark.slow
def test_stock_open_clip_without_this_package_loads_a_mobilenet(tmp_path):
    export_model(create_model(with_small_text(MOBILENET)), tmp_path / "export")
    code = (
        "import sys, torch, open_clip\n"
        f"model, _, _ = open_clip.create_model_and_transforms('local-dir:{tmp_path / 'export'}')\n"
        "print(model.encode_image(torch.zeros(2, 3, 224, 224)).shape[1], 'harness' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["32", "False"]


def test_a_mobilenets_projection_is_one_of_open_clips():
    """Without a bias, and drawn as wide as any nn.Linear of 1024 inputs."""
    loaded = create_model(with_small_text(MOBILENET))
    projection = loaded.model.visual.trunk.classifier
    assert (projection.in_features, projection.out_features) == (1024, 32)
    assert not projection.bias.requires_grad and not projection.bias.any()
    assert 0.9 / 32 < projection.weight.abs().max() <= 1 / 32


def test_a_mobilenets_bias_from_elsewhere_is_kept(tmp_path):
    """A model of another origin may have one: it is loaded, and may be trained."""
    loaded = create_model(with_small_text(MOBILENET))
    bias = loaded.model.visual.trunk.classifier.bias
    bias.data.fill_(0.5)
    export_model(replace(loaded), tmp_path / "export")
    again = load_model(f"local-dir:{tmp_path / 'export'}").model.visual.trunk.classifier
    assert torch.equal(again.bias, bias) and again.bias.requires_grad


def test_a_timm_tower_that_open_clip_sizes_wrongly_gets_a_word_on_how_to_mend_it():
    vision = {"timm_model_name": "mobilenetv3_small_050", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    config = {**copy.deepcopy(tiny.STUDENT), "vision_cfg": vision}
    with pytest.raises(UserError, match=r"set vision_cfg\.timm_pool to avg and vision_cfg\.timm_proj to ''"):
        forward_smoke_test(create_model(ModelConfig(model="test-zoo-wrong", config=config)), "student")
    config["vision_cfg"] |= {"timm_pool": "avg", "timm_proj": ""}
    forward_smoke_test(create_model(ModelConfig(model="test-zoo-right", config=config)), "student")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("vit-t/16", "ViT-T-16"),
        ("timm-resnet18", "timm_resnet18"),
        ("resnet18", "timm_resnet18"),
        ("mobilevit_s", "timm-mobilevit_s"),
        ("efficientnet_b0", "timm-efficientnet-b0"),
        ("timm_mobilenetv3_small", MOBILENET),
        ("ViT-B-61", "ViT-B-16"),
    ],
)
def test_a_near_miss_gets_the_right_name_first(wrong, right):
    assert nearest(wrong)[0] == right
    with pytest.raises(UserError, match=rf"did you mean {right}"):
        load_model(wrong)


def test_a_name_like_no_other_gets_no_guess():
    assert nearest("my-own-model-7") == []
    with pytest.raises(UserError) as refused:
        load_model("my-own-model-7")
    assert "did you mean" not in str(refused.value)
