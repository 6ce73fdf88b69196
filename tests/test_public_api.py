"""The public surface, frozen: a change here is a change for every user and belongs in the changelog."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

import kdlosses
from kdlosses import masking
from tests.problems import Problem
from tests.running import build

PUBLIC = [
    "AFDLoss",
    "AffinityLoss",
    "BankLoss",
    "CLIPKDLoss",
    "CLIPLoss",
    "CRDLoss",
    "Computation",
    "CrossKDLoss",
    "DecoupledAffinityLoss",
    "DistillLoss",
    "FDLoss",
    "GDLoss",
    "GramLoss",
    "ICLLoss",
    "MFDLoss",
    "MatryoshkaLoss",
    "MultiCaptionLoss",
    "MultiTeacherLoss",
    "ParameterReport",
    "RelationLoss",
    "SigLIPLoss",
    "SigmoidKDLoss",
    "Term",
    "UntrainedParametersWarning",
    "VRDLoss",
    "XRDLoss",
    "__version__",
    "available_losses",
    "available_terms",
    "backends",
    "build",
    "default_weights",
    "masking",
    "parameter_report",
    "register",
    "share_parameters",
]
CLASSES = {
    "afd": kdlosses.AFDLoss,
    "affinity": kdlosses.AffinityLoss,
    "bank": kdlosses.BankLoss,
    "clip_kd": kdlosses.CLIPKDLoss,
    "contrastive": kdlosses.CLIPLoss,
    "crd": kdlosses.CRDLoss,
    "cross_kd": kdlosses.CrossKDLoss,
    "decoupled_affinity": kdlosses.DecoupledAffinityLoss,
    "fd": kdlosses.FDLoss,
    "gd": kdlosses.GDLoss,
    "gram": kdlosses.GramLoss,
    "icl": kdlosses.ICLLoss,
    "mfd": kdlosses.MFDLoss,
    "relation": kdlosses.RelationLoss,
    "siglip": kdlosses.SigLIPLoss,
    "sigmoid_kd": kdlosses.SigmoidKDLoss,
    "vrd": kdlosses.VRDLoss,
    "xrd": kdlosses.XRDLoss,
}
IMPORTS = """
import sys
import torch
before = set(sys.modules)
import kdlosses
print(*set(sys.modules) - before)
kdlosses.backends.available()
print("triton" in sys.modules)
"""


@pytest.fixture(scope="module")
def imported() -> list[str]:
    """What a fresh process prints: the modules that `kdlosses` adds to torch's, and whether Triton is loaded."""
    run = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def test_public_names():
    assert sorted(kdlosses.__all__) == PUBLIC
    assert all(hasattr(kdlosses, name) for name in PUBLIC)


@pytest.mark.parametrize(
    "name", ["TokenDropout", "mask_pixels", "random_patch_mask", "supports_token_dropping", "token_dropping"]
)
def test_masking_names(name):
    assert callable(getattr(masking, name))


def test_losses_by_name():
    assert kdlosses.available_losses() == list(CLASSES)
    for name, expected in CLASSES.items():
        options = {"num_keys": 3} if name == "bank" else {}
        assert type(kdlosses.build(name, **options, **Problem().dims)) is expected


def test_every_public_class_and_function_says_what_it_does():
    documented = [getattr(kdlosses, name) for name in PUBLIC if name != "__version__"]
    assert all((thing.__doc__ or "").strip() for thing in documented)


def test_the_bias_is_explained_where_it_is_accepted():
    assert "cannot change a softmax" in " ".join(kdlosses.CRDLoss.forward.__doc__.split())


def test_import_pulls_in_torch_and_nothing_else(imported):
    extra = {name.partition(".")[0] for name in imported[0].split()} - {"torch"} - set(sys.stdlib_module_names)
    assert extra == {"kdlosses"}


def test_import_adds_few_modules(imported):
    """Beside its own: a part of torch that torch itself leaves out, its compiler say, would bring hundreds."""
    others = {name for name in imported[0].split() if name.partition(".")[0] != "kdlosses"}
    assert len(others) < 5, others


def test_neither_importing_it_nor_listing_backends_imports_triton(imported):
    assert imported[1] == "False"


def test_backends_are_listed_with_the_reason_why_not():
    known = kdlosses.backends.available()
    assert known["dense"] is known["chunked"] is None
    assert all(reason is None or reason.strip() for reason in known.values())
    assert "auto" not in known


def test_every_usable_backend_is_created_by_its_name():
    for name, reason in kdlosses.backends.available().items():
        if reason is None:
            assert kdlosses.backends.create(name).name == name


class TestParameterReport:
    def test_a_loss_without_parameters(self):
        report = kdlosses.parameter_report(kdlosses.CRDLoss())
        assert (report.has_parameters, report.names, report.missing) == (False, (), ())
        assert "CRDLoss has no parameters" in report.message

    def test_without_an_optimizer_everything_is_missing(self):
        report = kdlosses.parameter_report(kdlosses.ICLLoss())
        assert report.has_parameters
        assert report.names == report.missing == ("cross_logit_scale",)
        assert "cross_logit_scale" in str(report)

    def test_an_optimizer_that_holds_a_part(self):
        loss = build("icl", Problem(student_dim=4, teacher_dim=6))
        report = kdlosses.parameter_report(loss, torch.optim.AdamW([loss.cross_logit_scale]))
        assert report.missing == tuple(name for name, _ in loss.named_parameters() if "proj" in name)
        assert len(report.missing) == 4
        assert all(name in report.message for name in report.missing)
        assert "add_param_group" in report.message

    def test_what_it_says_to_add_can_be_added(self):
        loss = build("icl", Problem(student_dim=4, teacher_dim=6))
        optimizer = torch.optim.AdamW([loss.cross_logit_scale])
        found = re.search(r"optimizer\.(add_param_group\(.*\))", kdlosses.parameter_report(loss, optimizer).message)
        eval(found[0], {"optimizer": optimizer, "loss": loss})
        assert kdlosses.parameter_report(loss, optimizer).ok

    def test_an_optimizer_that_holds_everything_in_several_groups(self):
        loss, model = build("icl", Problem(student_dim=4, teacher_dim=6)), torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        assert len(kdlosses.parameter_report(loss, optimizer).missing) == 5
        optimizer.add_param_group({"params": loss.parameters(), "weight_decay": 0.0})
        report = kdlosses.parameter_report(loss, optimizer)
        assert report.missing == ()
        assert "holds them all" in report.message

    def test_frozen_parameters_need_no_optimizer(self):
        loss = kdlosses.ICLLoss().requires_grad_(False)
        assert not kdlosses.parameter_report(loss).has_parameters
