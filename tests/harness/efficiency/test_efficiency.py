"""FLOPs against counts by hand, and a measurement's shape."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torchvision.models import resnet50

from harness.cli import main
from harness.config import dump_recipe
from harness.efficiency import measure
from harness.efficiency.clock import median_seconds
from harness.efficiency.flops import count_flops
from harness.export import export_model
from harness.models import create_model, load_model
from harness.runs import prepare_run
from tests.harness import tiny


def blocks(tokens: int, width: int, layers: int) -> int:
    """FLOPs of transformer blocks: queries, keys, values; scores and their sums; projection; an MLP of four widths."""
    attention = 2 * tokens * width * 3 * width + 2 * 2 * tokens * tokens * width + 2 * tokens * width * width
    return layers * (attention + 2 * 2 * tokens * width * 4 * width)


def vit(size: int, patch: int, width: int, layers: int, embed: int) -> int:
    patches = (size // patch) ** 2
    return 2 * patches * 3 * patch * patch * width + blocks(patches + 1, width, layers) + 2 * width * embed


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_vit_is_counted_as_by_hand_attention_included(mode):
    """In eval mode torch fuses attention into an operator that its counter does not know."""
    model = getattr(create_model(tiny.recipe().student).model, mode)()
    config = tiny.STUDENT
    size, patch, width = (config["vision_cfg"][key] for key in ("image_size", "patch_size", "width"))
    by_hand = vit(size, patch, width, config["vision_cfg"]["layers"], config["embed_dim"])
    assert count_flops(lambda: model.encode_image(torch.zeros(1, 3, size, size))) == by_hand
    length, width = (config["text_cfg"][key] for key in ("context_length", "width"))
    tokens = torch.zeros(1, length, dtype=torch.long)
    # The text's embedding is projected at its end alone.
    by_hand = blocks(length, width, config["text_cfg"]["layers"]) + 2 * width * config["embed_dim"]
    assert count_flops(lambda: model.encode_text(tokens)) == by_hand


def test_a_timm_vit_with_fused_attention_is_counted_too():
    import timm

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    assert model.blocks[0].attn.fused_attn
    assert count_flops(lambda: model(torch.zeros(1, 3, 224, 224))) == vit(224, 16, 192, 12, 0)


def test_resnet_50_has_the_4_1_billion_multiply_adds_that_papers_give():
    model = resnet50().eval()
    assert count_flops(lambda: model(torch.zeros(1, 3, 224, 224))) / 2 == pytest.approx(4.1e9, rel=0.01)


def test_both_towers_are_measured_and_the_model_is_left_as_it_was():
    loaded = load_model("shipped:openmoji-teacher")
    loaded.model.train()
    found = measure(loaded, batch_size=2, repeats=3)
    assert loaded.model.training and all(not p.is_inference() for p in loaded.model.parameters())
    assert found["image"]["parameters"] + found["text"]["parameters"] == loaded.parameters["total"]
    for tower in ("image", "text"):
        assert found[tower].keys() == {"parameters", "flops", "latency_ms", "per_second"}
        assert all(value > 0 for value in found[tower].values())
    assert (found["batch_size"], found["precision"], found["threads"]) == (2, "fp32", torch.get_num_threads())
    assert json.loads(json.dumps(found)) == found


def test_the_median_of_the_repeats_counts(monkeypatch):
    times = iter([9.0, 9.0, 9.0, 1.0, 50.0, 2.0, 3.0, 1.5])  # three warm up
    monkeypatch.setattr("harness.efficiency.clock._on_cpu", lambda call: next(times))
    assert median_seconds(lambda: None, torch.device("cpu"), repeats=5) == 2.0


def test_the_command_prints_a_table_or_json_and_writes_into_a_run(monkeypatch, capsys, tmp_path):
    export_model(create_model(tiny.recipe().student), tmp_path / "run" / "export")
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(tiny.recipe()))

    def clipkd(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["clipkd", "efficiency", str(tmp_path / "run"), "--repeats", "1", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return capsys.readouterr().out

    written = json.loads(clipkd("--json", "--batch-size", "2"))[str(tmp_path / "run")]
    assert json.loads((tmp_path / "run" / "efficiency.json").read_text()) == written
    table = clipkd("--batch-size", "2")
    assert "GFLOPs" in table and "a multiply-add is 2" in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_run_that_begins_anew_has_no_cost_of_the_one_before(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    (tmp_path / "efficiency.json").write_text("{}")
    prepare_run(tiny.recipe(), tmp_path, "test", torch.device("cpu"))
    assert not (tmp_path / "efficiency.json").exists()
