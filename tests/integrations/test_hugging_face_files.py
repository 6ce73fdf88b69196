"""What `CLIPDistillationTrainer` writes: a plain student, the loss beside it, and enough to go on bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import kdlosses
from harness.weights.checksums import check
from harness.weights.tensor_files import tensor_records
from kdlosses.integrations.hugging_face import load_loss, save_loss
from tests.integrations.hf_models import Pairs, clip, seeded, siglip
from tests.integrations.hf_runs import assert_same, everything, trainer

pytestmark = pytest.mark.filterwarnings("error::kdlosses.UntrainedParametersWarning")


def test_checkpoints_hold_a_plain_student_and_resume_bit_for_bit(tmp_path):
    teacher = seeded(siglip, 24, seed=1)
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "weight_decay": 0.1}
    settings |= {"gradient_accumulation_steps": 2, "train_dataset": Pairs(40)}
    whole = trainer(tmp_path / "whole", seeded(clip), teacher, **settings)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-3"
    _, report = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert load_file(folder / "kd_loss.safetensors").keys() == whole.loss.state_dict().keys()
    resumed = trainer(tmp_path / "resumed", seeded(clip, seed=2), teacher, **settings)
    with torch.no_grad():
        resumed.loss.visual_proj.weight.zero_()
    resumed.train(resume_from_checkpoint=str(folder))
    assert_same(everything(resumed), everything(whole), rtol=0, atol=0)
    load_loss(resumed.loss, folder)
    assert not torch.equal(resumed.loss.visual_proj.weight, whole.loss.visual_proj.weight)
    (folder / "kd_loss.safetensors").unlink()
    with pytest.raises(ValueError, match=r"kd_loss.safetensors is missing, so the parameters of CLIPKDLoss .*cannot"):
        resumed.train(resume_from_checkpoint=str(folder))
    with pytest.raises(ValueError, match=r"holds .* where FDLoss has .*build the loss with the terms and widths"):
        load_loss(kdlosses.FDLoss(student_dim=16, teacher_dim=8), tmp_path / "whole" / "checkpoint-6")


def test_a_loss_without_parameters_leaves_none_and_takes_none(tmp_path):
    save_loss(kdlosses.ICLLoss(student_dim=16, teacher_dim=16), tmp_path)
    with pytest.raises(ValueError, match=r"holds .*cross_logit_scale.* where CRDLoss has none; build the loss"):
        load_loss(kdlosses.CRDLoss(), tmp_path)
    save_loss(kdlosses.CRDLoss(), tmp_path)  # a folder that is written to again
    assert not list(tmp_path.iterdir())
    load_loss(kdlosses.CRDLoss(), tmp_path)


def test_the_best_model_comes_with_its_loss(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "crd_loss", "greater_is_better": True}
    run = trainer(tmp_path, seeded(clip), seeded(clip, 24, seed=1), learning_rate=3e-3, **settings)
    run.train()
    best = Path(run.state.best_model_checkpoint)
    saved = load_file(best / "kd_loss.safetensors")
    assert best.name == "checkpoint-2"  # the worse one, as told
    assert all(torch.equal(value, saved[name]) for name, value in run.loss.state_dict().items())


def test_a_losses_file_that_is_damaged_or_not_finite_is_refused(tmp_path):
    loss = kdlosses.ICLLoss(student_dim=16, teacher_dim=24)
    save_loss(loss, tmp_path)
    path = tmp_path / "kd_loss.safetensors"
    whole = path.read_bytes()
    assert {record.name for record in tensor_records(path)} >= set(loss.state_dict())  # harness reads the same sums
    check(path, tensor_records(path))
    for place, words in ((len(whole) - 5, "its tensor .* does not match its checksum"), (3, "it cannot be read")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"kd_loss.safetensors is damaged: {words}"):
            load_loss(loss, tmp_path)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"kd_loss.safetensors is damaged: "):
        load_loss(loss, tmp_path)
    with torch.no_grad():
        loss.visual_proj.bias[0] = float("inf")
    save_loss(loss, tmp_path)
    with pytest.raises(ValueError, match=r"holds NaN or infinity in visual_proj.bias, so"):
        load_loss(loss, tmp_path)


def test_checksums_that_are_no_list_are_refused(tmp_path):
    loss = kdlosses.ICLLoss()
    metadata = {"format": "pt", "crc32": "[" * 100_000}
    save_file(loss.state_dict(), tmp_path / "kd_loss.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="damaged: its header does not fit its list of checksums"):
        load_loss(loss, tmp_path)


def test_a_losses_file_without_checksums_is_read(tmp_path):
    loss, fresh = (kdlosses.ICLLoss(student_dim=16, teacher_dim=24) for _ in range(2))
    save_file(loss.state_dict(), tmp_path / "kd_loss.safetensors", metadata={"format": "pt", "loss": "ICLLoss"})
    load_loss(fresh, tmp_path)
    assert torch.equal(fresh.visual_proj.weight, loss.visual_proj.weight)
