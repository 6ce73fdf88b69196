"""The example of CLIP-KD's trainer, run as its docstring says: one process and two make the same student."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "clip_kd_trainer.py"
OPTIONS = ["--pairs", "96", "--grad-clip-norm", "100", "--alpha_gd_loss", "1e8", "--lr", "0.03"]
LIMIT = 120


def run(*command: str) -> list[str]:
    # Its words an error: that the guard is silent is part of what is tested.
    settings = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error:KDClipLoss"}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | settings,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "UntrainedParametersWarning" not in done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("step")]


def numbers(line: str) -> list[float]:
    return [float(word) for word in line.split() if word[-1].isdigit()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The lines and the checkpoint of one process, and those of two."""
    folder = tmp_path_factory.mktemp("clip_kd")
    one, two = folder / "one.pt", folder / "two.pt"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = run(str(EXAMPLE), *OPTIONS, "--batch-size", "16", "--checkpoint", str(one))
    together = run(*launch, str(EXAMPLE), *OPTIONS, "--batch-size", "8", "--checkpoint", str(two))
    return [(alone, torch.load(one)), (together, torch.load(two))]


def test_every_step_has_the_same_terms(runs):
    (alone, _), (together, _) = runs
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert numbers(other) == pytest.approx(numbers(one), rel=2e-3, abs=2e-4)


def test_the_loss_falls(runs):
    totals = [numbers(line)[0] for line in runs[0][0]]
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("part", ["state_dict", "loss"])
def test_both_make_the_same_student_and_the_same_projections(runs, part):
    (_, alone), (_, together) = runs
    assert alone[part].keys() == together[part].keys()
    for name, value in alone[part].items():
        torch.testing.assert_close(together[part][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_checkpoint_has_what_was_missing(runs):
    names = {"cross_logit_scale", "visual_proj.weight", "visual_proj.bias", "text_proj.weight", "text_proj.bias"}
    assert runs[0][1]["loss"].keys() == names
