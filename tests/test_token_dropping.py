"""Token dropping for ViT students: what the tower sees, and that it is itself again afterwards."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from open_clip.transformer import VisionTransformer

from kdlosses.masking import TokenDropout, random_patch_mask, supports_token_dropping, token_dropping
from tests.problems import seeded
from tests.strategies import RATIOS


@given(prefix=st.integers(0, 3), patches=st.integers(2, 20), ratio=RATIOS)
def test_token_dropout_keeps_the_prefix_and_the_order(prefix, patches, ratio):
    assume(round(ratio * patches) < patches)
    tokens = torch.arange(prefix + patches).repeat(3, 1).unsqueeze(2).repeat(1, 1, 2).float()
    kept = TokenDropout(ratio, prefix, seeded())(tokens)
    hidden = random_patch_mask(3, patches, ratio, seeded())
    for sample in range(3):
        visible = [prefix + i for i in range(patches) if not hidden[sample, i]]
        assert kept[sample, :, 0].tolist() == [*range(prefix), *visible]
    assert torch.equal(kept[:, :, 0], kept[:, :, 1])


def test_token_dropout_also_acts_in_eval_mode_and_passes_gradients():
    tokens = torch.rand(2, 9, 3, requires_grad=True)
    kept = TokenDropout(0.5, 1, seeded()).eval()(tokens)
    kept.sum().backward()
    assert kept.shape == (2, 5, 3)
    assert tokens.grad.sum() == 2 * 5 * 3


@pytest.fixture(scope="module")
def visual() -> torch.nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(32, 8, 16, 2, 2, 2.0, output_dim=8).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=seeded())


def tokens_seen(visual, images) -> torch.Tensor:
    seen = []
    handle = visual.ln_pre.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    visual(images)
    handle.remove()
    return seen[0]


def test_the_tower_sees_the_class_token_and_the_visible_patches_in_order(visual, images):
    whole = tokens_seen(visual, images)
    with token_dropping(visual, 0.75, seeded(2)):
        dropped = tokens_seen(visual, images)
    hidden = random_patch_mask(3, 16, 0.75, seeded(2))
    assert dropped.shape[1] == 1 + 4
    for sample in range(3):
        assert torch.equal(dropped[sample, 0], whole[sample, 0])
        assert torch.equal(dropped[sample, 1:], whole[sample, 1:][~hidden[sample]])


def test_the_tower_is_itself_again_after_the_block_even_after_an_error(visual, images):
    before, place = visual(images), visual.patch_dropout
    with pytest.raises(RuntimeError, match="within"), token_dropping(visual, 0.5, seeded()):
        raise RuntimeError("within")
    assert visual.patch_dropout is place
    assert torch.equal(visual(images), before)


def test_ratio_zero_changes_nothing(visual, images):
    before = visual(images)
    with token_dropping(visual, 0.0, seeded()):
        assert torch.equal(visual(images), before)


def test_the_seed_decides_the_embedding(visual, images):
    outputs = []
    for seed in (1, 1, 2):
        with token_dropping(visual, 0.5, seeded(seed)):
            outputs.append(visual(images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


def test_state_dict_does_not_change(visual):
    keys = list(visual.state_dict())
    with token_dropping(visual, 0.5):
        assert list(visual.state_dict()) == keys


def test_timm_towers_too(images):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0}
    tower = timm.models.vision_transformer.VisionTransformer(**sizes, patch_drop_rate=0.1).eval()
    seen = []
    tower.norm_pre.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    with token_dropping(tower, 0.75, seeded()):
        tower(images)
    tower(images)
    assert seen == [1 + 4, 1 + 16]


def test_all_of_a_towers_prefix_tokens_stay(images):
    """Three registers and a class token: four tokens and four of sixteen patches are left."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 0}
    tower = timm.models.vision_transformer.VisionTransformer(**sizes, reg_tokens=3, patch_drop_rate=0.1).eval()
    seen = []
    tower.norm_pre.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    tower.patch_drop.prob = 0.0
    tower(images)
    with token_dropping(tower, 0.75, seeded(2)):
        tower(images)
    whole, dropped = seen
    hidden = random_patch_mask(3, 16, 0.75, seeded(2))
    assert dropped.shape[1] == 4 + 4
    for sample in range(3):
        assert torch.equal(dropped[sample, :4], whole[sample, :4])
        assert torch.equal(dropped[sample, 4:], whole[sample, 4:][~hidden[sample]])


def test_other_towers_are_refused_with_the_way_out(visual):
    tower = torch.nn.Conv2d(3, 4, 3)
    assert supports_token_dropping(visual)
    assert not supports_token_dropping(tower)
    with pytest.raises(ValueError, match=r"Conv2d .*mask_pixels"), token_dropping(tower, 0.5):
        pass


def test_a_tower_whose_dropout_returns_indices_is_refused():
    class PatchDropoutWithIndices(torch.nn.Identity):
        """Named as timm's, which gives a pair."""

    tower = torch.nn.Module()
    tower.patch_drop = PatchDropoutWithIndices()
    assert not supports_token_dropping(tower)
