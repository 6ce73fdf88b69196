"""Lightning, unmodified: student and loss train on one process as on two, accumulate, resume and are exported."""

from __future__ import annotations

import importlib
import math
import sys
from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

import kdlosses
from kdlosses.integrations.lightning import CLIPDistillation, DistillationCallback
from tests.integrations.scripts import EXAMPLES, blocks, example, start

pytestmark = [
    pytest.mark.filterwarnings("error::kdlosses.UntrainedParametersWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),  # Lightning's, with torch 2.14
]
PAGE = "docs/integrations/lightning.md"
toy = example("lightning_module")


def fit(module, batches, **settings):
    """One pass over `batches`."""
    settings = {"max_epochs": 1, "logger": False, "enable_checkpointing": False} | settings
    trainer = L.Trainer(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, **settings)
    trainer.fit(module, batches)
    return trainer


def batches(count=2, size=8):
    return DataLoader(toy.pairs(count * size, 5), batch_size=size)


def module_with(optimizer):
    """The example's, with another optimizer."""
    made = toy.make_module(1e-3)
    return CLIPDistillation(made.student, made.teacher, made.loss, optimizer)


def vector(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def checkpoint(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of a run on this process: two epochs of 8 batches, two batches a step."""
    folder = tmp_path_factory.mktemp("one")
    toy.main(["--accumulate", "2", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of the same run on two processes, as a user starts it, and what it said."""
    folder = tmp_path_factory.mktemp("two")
    command = [EXAMPLES / "lightning_module.py", "--accumulate", "2", "--devices", "2", "--out", folder]
    return folder, start(command, folder)


@pytest.mark.slow
@pytest.mark.distributed
class TestTwoProcesses:
    def test_train_what_one_trains(self, one, two):
        found, wanted = (checkpoint(folder)["state_dict"] for folder in (two[0], one))
        assert found.keys() == wanted.keys()
        before = toy.make_module(1e-3).state_dict()
        for name, value in wanted.items():
            assert not torch.equal(value, before[name]), name
            torch.testing.assert_close(
                found[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )

    def test_log_what_one_logs(self, one, two):
        lines = [line for line in two[1].splitlines() if line.startswith("after 8 steps")]
        assert len(lines) == 1
        trainer = toy.main(["--accumulate", "2", "--epochs", "2", "--out", str(one.parent / "logged")])
        printed = dict(part.rsplit(" ", 1) for part in lines[0].removeprefix("after 8 steps: ").split(", "))
        for name, value in trainer.callback_metrics.items():
            # To three decimals: the same text where no rounding of float32 falls between.
            assert float(printed[name]) == pytest.approx(float(value), abs=5.1e-4, rel=1e-6)

    def test_the_losss_parameters_are_where_they_belong(self, two):
        assert "parameters of its own" not in two[1]  # the guard's sentence

    def test_both_take_part(self, two):
        assert "Starting with 2 processes" in two[1]


def test_resuming_is_exact(one, tmp_path):
    toy.main(["--accumulate", "2", "--epochs", "1", "--out", str(tmp_path)])
    assert checkpoint(tmp_path)["global_step"] == 4
    toy.main(["--accumulate", "2", "--epochs", "2", "--out", str(tmp_path)])
    found, wanted = checkpoint(tmp_path), checkpoint(one)
    assert found["global_step"] == wanted["global_step"] == 8
    assert all(torch.equal(found["state_dict"][name], value) for name, value in wanted["state_dict"].items())
    moments = [saved["optimizer_states"][0]["state"] for saved in (found, wanted)]
    assert len(moments[1]) == len(wanted["state_dict"])  # of the loss's parameters too
    for number, state in moments[1].items():
        assert all(torch.equal(moments[0][number][key], value) for key, value in state.items())


class TestACheckpoint:
    def test_holds_student_and_loss_and_no_teacher(self, one):
        module = toy.make_module(1e-3)
        names = {f"student.{name}" for name in module.student.state_dict()}
        names |= {f"loss.{name}" for name in module.loss.state_dict()}
        assert checkpoint(one)["state_dict"].keys() == names

    def test_gives_the_student_alone(self, one):
        student = toy.ToyCLIP(16)
        student.load_state_dict(torch.load(one / "student.pt", weights_only=True))  # strictly
        state = checkpoint(one)["state_dict"]
        assert all(torch.equal(value, state[f"student.{name}"]) for name, value in student.state_dict().items())

    def test_makes_a_module(self, one):
        made = toy.make_module(1e-3)
        parts = {"student": toy.ToyCLIP(16), "teacher": made.teacher, "loss": made.loss}
        loaded = CLIPDistillation.load_from_checkpoint(one / "last.ckpt", **parts)
        state = checkpoint(one)["state_dict"]
        assert all(torch.equal(value.cpu(), state[name]) for name, value in loaded.state_dict().items())


def test_accumulated_batches_are_averaged_each_with_its_own_negatives():
    module, expected = module_with(partial(torch.optim.SGD, lr=0.1)), toy.make_module(1e-3)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    for images, texts in batches():
        loss = expected.loss(*expected.student(images, texts), *expected.teacher(images, texts))
        (loss / 2).backward()
    optimizer.step()
    trainer = fit(module, batches(), accumulate_grad_batches=2)
    assert trainer.global_step == 1
    torch.testing.assert_close(vector(module), vector(expected), rtol=1e-5, atol=1e-6)


def test_clipping_counts_the_losss_parameters():
    module = module_with(partial(torch.optim.SGD, lr=1.0))
    before, own = vector(module), module.loss.cross_logit_scale.item()
    fit(module, batches(1), gradient_clip_val=0.01)
    assert (before - vector(module)).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert module.loss.cross_logit_scale.item() != own


def test_mixed_precision():
    values = {}
    for precision in ("32-true", "bf16-mixed"):
        module = toy.make_module(1e-3)
        values[precision] = fit(module, batches(4), precision=precision).callback_metrics["train/loss"].item()
        assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert values["bf16-mixed"] != values["32-true"]
    assert values["bf16-mixed"] == pytest.approx(values["32-true"], rel=5e-3)


class Masking(CLIPDistillation):
    """What somebody writes who masks images."""

    def forward(self, batch):
        images, texts = batch
        masked = super().forward((images * (torch.arange(images.shape[1]) % 4 == 0), texts))
        return super().forward(batch) | {"masked_image_features": masked["image_features"]}


class TestMaskedImages:
    def test_mfd_without_them_is_refused(self):
        made, loss = toy.make_module(1e-3), kdlosses.MFDLoss(student_dim=16, teacher_dim=24)
        with pytest.raises(ValueError, match=r"mfd reads .*embeddings of masked images, which nobody makes here"):
            CLIPDistillation(made.student, made.teacher, loss)

    def test_a_forward_of_ones_own_may_give_them(self):
        made, loss = toy.make_module(1e-3), kdlosses.MFDLoss(student_dim=16, teacher_dim=24)
        module = Masking(made.student, made.teacher, loss)
        module.log_dict = lambda *_, **__: None  # there is no trainer
        batch = next(iter(batches()))
        whole = loss(**made(batch), **made.teacher_outputs(batch))
        assert not torch.allclose(module.training_step(batch, 0), whole)


class TestTheTeacher:
    def test_is_frozen_and_stays_what_it_was(self):
        module = toy.make_module(1e-3)
        before = vector(module.teacher)
        module.train()
        fit(module, batches())
        assert torch.equal(vector(module.teacher), before)
        assert not module.teacher.training
        assert all(p.grad is None and not p.requires_grad for p in module.teacher.parameters())

    def test_is_no_part_of_the_module(self):
        module = toy.make_module(1e-3)
        hidden = set(module.teacher.modules())
        assert hidden.isdisjoint(module.modules())

    def test_goes_where_the_module_goes(self):
        module = toy.make_module(1e-3).double().to("meta")
        assert {(p.dtype, p.device.type) for p in module.teacher.parameters()} == {(torch.float64, "meta")}

    def test_is_not_the_student(self):
        student = toy.ToyCLIP(16)
        with pytest.raises(ValueError, match="teacher and student have trainable parameters in common"):
            CLIPDistillation(student, student, kdlosses.CRDLoss())

    def test_may_be_missing(self):
        module = CLIPDistillation(toy.ToyCLIP(16), None, kdlosses.CLIPLoss())
        trainer = fit(module, batches())
        assert trainer.callback_metrics["train/loss"] == trainer.callback_metrics["train/contrastive_loss"]

    def test_may_be_replaced_by_its_embeddings(self):
        class Cached(CLIPDistillation):
            def teacher_outputs(self, batch):
                return {f"dist_{name}": batch[name] for name in ("image_features", "text_features", "logit_scale")}

        module = toy.make_module(1e-3)
        cached = Cached(toy.make_module(1e-3).student, None, toy.make_module(1e-3).loss)
        mappings = []
        for images, texts in batches():
            image, text, scale = module.teacher(images, texts)
            mappings.append({"image": images, "text": texts, "image_features": image, "text_features": text})
            mappings[-1]["logit_scale"] = scale
        live = fit(module, batches()).callback_metrics["train/loss"]
        assert fit(cached, DataLoader(mappings, batch_size=None)).callback_metrics["train/loss"] == live


def test_the_optimizer_decays_the_students_matrices_alone():
    module = toy.make_module(1e-3)
    decayed, plain = module.configure_optimizers().param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(p) for p in module.student.parameters() if p.ndim > 1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(module.parameters()))


def test_scales_stay_within_their_bounds():
    module = toy.make_module(1e-3)
    with torch.no_grad():
        module.student.logit_scale.fill_(9.0)
        module.loss.cross_logit_scale.fill_(9.0)
    fit(module, batches(1))
    assert module.student.logit_scale.item() == pytest.approx(math.log(100))
    assert module.loss.cross_logit_scale.item() == pytest.approx(math.log(100), abs=1e-5)


class Own(L.LightningModule):
    """Somebody's module, with the docs' lines in it."""

    def __init__(self, loss, all_parameters=True):
        super().__init__()
        made = toy.make_module(1e-3)
        self.student, self.loss, self.hidden, self.all_parameters = made.student, loss, [made.teacher], all_parameters

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            taught = self.hidden[0](*batch)
        return self.loss(*self.student(*batch), *taught)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters() if self.all_parameters else self.student.parameters())


class TestTheCallback:
    @pytest.fixture
    def loss(self):
        return kdlosses.ICLLoss(student_dim=16, teacher_dim=24)

    def test_lets_a_module_of_ones_own_train(self, loss):
        module = Own(loss)
        before = vector(loss)
        with torch.no_grad():
            loss.cross_logit_scale.fill_(9.0)
        fit(module, batches(), callbacks=DistillationCallback())
        assert (vector(loss) != before).all()
        assert loss.cross_logit_scale.item() <= math.log(100)

    def test_any_of_the_optimizers_may_hold_them(self, loss):
        module = Own(loss)
        held = [torch.optim.SGD(part.parameters(), 0.1) for part in (loss, torch.nn.Linear(1, 1))]
        DistillationCallback().on_fit_start(SimpleNamespace(optimizers=held), module)

    def test_refuses_an_optimizer_without_the_losss_parameters(self, loss):
        with pytest.raises(
            ValueError, match=r"ICLLoss .* no optimizer of Own holds.* cross_logit_scale, .*parameters\(\)"
        ):
            fit(Own(loss, all_parameters=False), batches(), callbacks=DistillationCallback())

    def test_accepts_them_in_any_of_several_optimizers(self, loss):
        class Two(Own):
            def configure_optimizers(self):
                self.automatic_optimization = False
                return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.student, self.loss)]

        fit(Two(loss), batches(), callbacks=DistillationCallback())

    def test_refuses_a_module_without_a_loss(self, loss):
        with pytest.raises(ValueError, match=r"Own has no loss of kdlosses among its submodules.*self\.loss = loss"):
            fit(Own(lambda *features: loss(*features)), batches(), callbacks=DistillationCallback())


class TestTheDocs:
    @pytest.fixture
    def names(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        return {"torch": torch, "student": toy.ToyCLIP(512), "teacher": toy.ToyCLIP(768), "loader": batches()}

    def test_every_block_runs(self, names, one):
        use, schedule, export = blocks(PAGE)
        exec(use.replace("L.Trainer(", "L.Trainer(enable_progress_bar=False, logger=False, "), names)
        assert names["module"].trainer.global_step == 2
        exec(schedule, names)
        fit(names["module"], batches())
        assert names["module"].lr_schedulers().last_epoch == 2
        torch.save(checkpoint(one), "last.ckpt")
        names["student"] = student = toy.ToyCLIP(16)
        exec(export, names)
        assert torch.equal(student.logit_scale, checkpoint(one)["state_dict"]["student.logit_scale"])


def test_without_lightning_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "kdlosses.integrations.lightning")
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[lightning\]' in a checkout"):
        importlib.import_module("kdlosses.integrations.lightning")
