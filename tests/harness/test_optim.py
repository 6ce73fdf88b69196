"""Parameter groups and the learning rate over time."""

import math

import pytest
import torch
from torch import nn

from harness.config import OptimConfig, ScheduleConfig
from harness.optim import build_optimizer, build_schedule


def named_parameters() -> list[tuple[str, nn.Parameter]]:
    shapes = {
        "student.weight": (3, 2),
        "student.bias": (3,),
        "student.logit_scale": (),
        "loss.visual_proj.weight": (4, 3),
        "loss.cross_logit_scale": (),
    }
    return [(name, nn.Parameter(torch.zeros(shape))) for name, shape in shapes.items()]


def groups_of(config: OptimConfig, student: str = "RN50") -> dict[str, dict]:
    named = named_parameters()
    optimizer = build_optimizer(named, config, student)
    found = {}
    for name, parameter in named:
        (group,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
        found[name] = group
    return found


def test_only_matrices_decay_and_the_loss_has_its_own_rate():
    groups = groups_of(OptimConfig(lr=1e-3, weight_decay=0.1, loss_lr=5e-3, loss_weight_decay=0.02))
    decay = {name: group["weight_decay"] for name, group in groups.items()}
    assert decay == {
        "student.weight": 0.1,
        "student.bias": 0.0,
        "student.logit_scale": 0.0,
        "loss.visual_proj.weight": 0.02,
        "loss.cross_logit_scale": 0.0,
    }
    assert {name: group["lr"] for name, group in groups.items()} == {
        name: 5e-3 if name.startswith("loss.") else 1e-3 for name in groups
    }


@pytest.mark.parametrize(
    ("student", "betas", "eps"),
    [("ViT-T-16", (0.9, 0.98), 1e-6), ("timm-mobilevit_s", (0.9, 0.98), 1e-6), ("RN50", (0.9, 0.999), 1e-8)],
)
def test_betas_follow_the_papers_rule(student, betas, eps):
    for group in groups_of(OptimConfig(), student).values():
        assert (group["betas"], group["eps"]) == (betas, eps)


def test_given_betas_win():
    group = groups_of(OptimConfig(betas=(0.8, 0.9), eps=1e-5), "ViT-T-16")["student.weight"]
    assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-5)


def rates(config: ScheduleConfig, steps: int, lr: float = 2.0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = build_schedule(optimizer, config, steps)
    seen = []
    for _ in range(steps):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_warm_up_is_linear_then_cosine():
    seen = rates(ScheduleConfig(warmup_steps=4, kind="cosine"), steps=12)
    expected = [2.0 * (i + 1) / 4 for i in range(4)]
    expected += [2.0 * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert seen == pytest.approx(expected)


def test_cosine_ends_at_min_lr_and_constant_stays():
    assert rates(ScheduleConfig(min_lr=0.5), steps=1000)[-1] == pytest.approx(0.5, abs=1e-4)
    assert rates(ScheduleConfig(kind="constant", warmup_steps=2), steps=5) == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_min_lr_is_one_rate_for_all_groups():
    optimizer = build_optimizer(named_parameters(), OptimConfig(lr=1e-3, loss_lr=1e-2), "RN50")
    schedule = build_schedule(optimizer, ScheduleConfig(min_lr=1e-4), 50)
    for _ in range(50):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([1e-4] * 4)


def test_warm_up_as_long_as_the_run_reaches_the_peak():
    assert rates(ScheduleConfig(warmup_steps=3), steps=3)[-1] == 2.0
