"""What `CLIPDistillationTrainer` refuses, in one sentence each."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

import kdlosses
from kdlosses.integrations.hugging_face import CLIPDistillationTrainer
from kdlosses.integrations.hugging_face_limits import refuse_unsupported
from tests.integrations.hf_models import clip
from tests.integrations.hf_runs import arguments, trainer


def test_processes_that_the_trainer_does_not_know_of(tmp_path, monkeypatch):
    run = trainer(tmp_path, clip(), clip(24))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="there are 2 processes, but the Trainer takes each for a run of its own"):
        refuse_unsupported(run)


def test_without_transformers_one_sentence(monkeypatch):
    module = sys.modules["kdlosses.integrations.hugging_face"]
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[hugging-face\]' in a checkout"):
        importlib.import_module(module.__name__)


def test_what_is_refused_says_why(tmp_path):
    student, teacher = clip(), clip(24)
    with pytest.raises(
        ValueError, match=r"was built with student_dim=16, teacher_dim=24 but was called with .*width 32"
    ):
        trainer(tmp_path, student, clip(32)).train()
    assert not hasattr(student, "kd_loss")  # also after a failure
    with pytest.raises(ValueError, match="has no image: pixel_values or image is missing among input_ids"):
        run = trainer(tmp_path, student, teacher)
        run.compute_loss(student, {"input_ids": torch.ones(4, 8, dtype=torch.long)})
    with pytest.raises(ValueError, match="needs a teacher, or a loss that reads none"):
        CLIPDistillationTrainer(student, arguments(tmp_path))
    with pytest.raises(ValueError, match=r"teacher must be one model, got list; .*MultiTeacherLoss"):
        trainer(tmp_path, student, [teacher, teacher])
    with pytest.raises(ValueError, match=r"teacher and student have trainable parameters in common.*copy\.deepcopy"):
        trainer(tmp_path, student, student)
    with pytest.raises(ValueError, match=r"mfd reads .*embeddings of masked images, which nobody makes here.*use fd"):
        masked = kdlosses.CLIPKDLoss({"mfd": 1}, student_dim=16, teacher_dim=24)
        CLIPDistillationTrainer(student, arguments(tmp_path), teacher=teacher, loss=masked)
    with pytest.raises(ValueError, match=r"loss is given as loss=.*leave out compute_loss_func"):
        CLIPDistillationTrainer(student, arguments(tmp_path), teacher=teacher, compute_loss_func=len)
    with pytest.raises(ValueError, match=r"CLIPKDLoss has parameters of its own .*visual_proj.weight"):
        optimizers = (torch.optim.SGD(student.parameters(), lr=0.1), None)
        trainer(tmp_path, student, teacher, optimizers=optimizers).train()
    alone = arguments(tmp_path)
    alone._n_gpu = 2
    with pytest.raises(ValueError, match=r"would copy the student to 2 GPUs .*torchrun --nproc-per-node 2"):
        CLIPDistillationTrainer(student, alone, teacher=teacher)
