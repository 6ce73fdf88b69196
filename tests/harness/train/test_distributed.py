"""Several processes train what one trains; they stop together, and a run moves between numbers of processes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from harness.cli.guard import TERMINATED
from harness.errors import UserError
from harness.metrics import read_metrics
from harness.runs import lock_run_folder
from harness.train import Trainer
from harness.train.distributed import DistributedContext, init_distributed
from harness.train.parallel import can_shard
from tests.harness import tiny
from tests.harness.data.pairs import write_csv
from tests.harness.train.forks import NAMED, carry_out

CPU = torch.device("cpu")
SHARDED = pytest.mark.skipif(not can_shard(CPU), reason="this torch cannot shard on CPUs")
SOFTMAX = {"contrastive": 1, "crd": 1, "fd": 100, "mfd": 100, "gd": 10, "icl": 1, "afd": 1, "cross_kd": 1}
# So a bias that is trained, and a queue of teacher embeddings that is full in the third step.
ALL = {**SOFTMAX, "siglip": 0.5, "sigmoid_kd": 0.5, "bank": 0.5}
SLOW_RUNS = {
    "four",
    "sliced",
    "fsdp2",
    "fsdp2 sliced",
    "moved",
    "fsdp2 stopped",
    "unsharded",
    "biased",
    "whole",
    "stopped",
    "stalled",
}
# Kept rates: AdamW divides by the size of gradients, so that rounding in one near 0 could take a whole step's length.
OPTIM = {"lr": 1e-3, "eps": 1e-3, "grad_clip": 5.0}


def recipe(csv, **train) -> dict:
    """Every term; nothing that processes draw for themselves."""
    made = tiny.recipe(
        data={"train": str(csv), "cache": "none"},
        student={"model": "test-biased-student", "config": {**tiny.STUDENT, "init_logit_bias": -4}},
        teacher={"model": "test-biased-teacher", "config": {**tiny.TEACHER, "init_logit_bias": -5}},
        loss={"weights": ALL, "mask_ratio": 0.0, "options": {"bank": {"queue_size": 40}}},
        optim=OPTIM,
        train={"batch_size": 16, "steps": 4, "log_every": 2, **train},
    )
    return made.model_dump(mode="json")


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory) -> Path:
    """The folder of all runs, done once; those that only slow tests look at are left out where none is selected."""
    folder = tmp_path_factory.mktemp("processes")
    train = write_csv(folder / "csv", 60)
    one, longer, sharded = recipe(train), recipe(train, steps=6), recipe(train, parallel="fsdp2")
    runs = [
        {"out": "one", "recipe": one, "world": 1},
        {"out": "ddp", "recipe": one, "world": 2},
        {"out": "four", "recipe": one, "world": 4},
        {"out": "sliced", "recipe": recipe(train, accum_freq=2), "world": 2},
        {"out": "fsdp2", "recipe": recipe(train, parallel="fsdp2"), "world": 2},
        {"out": "fsdp2 sliced", "recipe": recipe(train, parallel="fsdp2", accum_freq=4), "world": 2},
        {"out": "whole", "recipe": longer, "world": 2},
        {"out": "stopped", "recipe": longer, "world": 2, "sigterm_at": 3},
        {"out": "stopped", "recipe": longer, "world": 2},
        {"out": "moved", "recipe": longer, "world": 2, "sigterm_at": 3},
        {"out": "moved", "recipe": longer, "world": 1},
        {"out": "fsdp2 stopped", "recipe": recipe(train, parallel="fsdp2"), "world": 2, "sigterm_at": 2},
        {"out": "fsdp2 stopped", "recipe": recipe(train, parallel="fsdp2"), "world": 2},
        {"out": "unsharded", "recipe": sharded, "world": 2, "sigterm_at": 2},
        {"out": "unsharded", "recipe": sharded, "world": 1},
        {"out": "orphaned", "recipe": longer, "world": 2, "kill_at": 3},
        {"out": "starved", "recipe": longer, "world": 2, "fault": "memory"},
        {"out": "stalled", "recipe": recipe(train, stall_timeout=1.0), "world": 2, "fault": "stall"},
        {"out": "biased", "recipe": biased(train), "world": 2},
        {"out": "refused", "recipe": recipe(folder / "nowhere.csv"), "world": 2},
        {"out": "held", "recipe": one, "world": 2},
    ]
    runs = [run for run in runs if can_shard(CPU) or run["recipe"]["train"]["parallel"] != "fsdp2"]
    mine = [item for item in request.session.items if item.path == request.path]
    if not any(item.get_closest_marker("slow") for item in mine):
        runs = [run for run in runs if run["out"] not in SLOW_RUNS]
    with lock_run_folder(folder / "held"):
        carry_out(folder, {"runs": runs})
    return folder


def biased(train) -> dict:
    """A student with a bias on its logits that no term reads."""
    made = recipe(train)
    made["loss"] |= {"weights": SOFTMAX, "options": {}}
    return made


def codes(folder: Path, out: str) -> list[list[int]]:
    plan = json.loads((folder / "plan.json").read_text())["runs"]
    found = json.loads((folder / "codes.json").read_text())
    return [code for run, code in zip(plan, found, strict=True) if run["out"] == out]


def checkpoint(folder: Path, out: str) -> dict:
    return torch.load(folder / out / "checkpoints" / "latest.pt", weights_only=True)


def logs(folder: Path, out: str) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob(f"{out}.*.log")))


@pytest.mark.parametrize(
    "out",
    [
        "ddp",
        pytest.param("four", marks=pytest.mark.slow),
        pytest.param("sliced", marks=pytest.mark.slow),
        pytest.param("fsdp2", marks=[SHARDED, pytest.mark.slow]),
        pytest.param("fsdp2 sliced", marks=[SHARDED, pytest.mark.slow]),
    ],
)
def test_several_processes_train_what_one_trains(finished, out):
    assert codes(finished, out) in ([[0, 0]], [[0, 0, 0, 0]]), logs(finished, out)
    one, other = checkpoint(finished, "one"), checkpoint(finished, out)
    assert abs(one["state_dict"]["logit_bias"] + 4) > 1e-4, "the sigmoid terms have trained it"
    for part in ("state_dict", "loss"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            assert value.shape == other[part][name].shape, name
            assert torch.allclose(value, other[part][name], rtol=2e-4, atol=2e-6), name
    for first, second in zip(*(read_metrics(finished / x / "metrics.jsonl") for x in ("one", out)), strict=True):
        for name in (*(f"{term}_loss" for term in ALL), "grad_norm", "logit_scale"):
            assert second[name] == pytest.approx(first[name], rel=2e-4, abs=1e-9), name


@pytest.mark.parametrize(
    "out",
    [
        "one",
        "ddp",
        pytest.param("stopped", marks=pytest.mark.slow),
        pytest.param("fsdp2", marks=[SHARDED, pytest.mark.slow]),
    ],
)
def test_no_process_warns_of_parameters_that_nobody_trains(finished, out):
    told = [path.read_text() for path in finished.glob(f"{out}.*.log")]
    assert told
    assert not any("UntrainedParametersWarning" in text for text in told)


@pytest.mark.parametrize("out", ["ddp", pytest.param("fsdp2", marks=[SHARDED, pytest.mark.slow])])
def test_one_process_writes_and_the_export_is_whole(finished, out):
    summary = json.loads((finished / out / "summary.json").read_text())
    assert summary["processes"] == 2
    assert (finished / out / "export" / "open_clip_model.safetensors").is_file()
    assert summary["parameters"] == json.loads((finished / "one" / "summary.json").read_text())["parameters"]


@pytest.mark.slow
def test_sigterm_to_one_process_saves_the_step_and_resuming_is_exact(finished):
    assert codes(finished, "stopped") == [[TERMINATED] * 2, [0, 0]], logs(finished, "stopped")
    assert "SIGTERM or SIGHUP came; saved step" in logs(finished, "stopped")
    whole, stopped = checkpoint(finished, "whole"), checkpoint(finished, "stopped")
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, stopped["state_dict"][name]), name
    resumed = json.loads((finished / "stopped" / "run.json").read_text())["resumed"]
    assert [again["after_step"] for again in resumed] in ([3], [4])


@SHARDED
@pytest.mark.slow
def test_a_sharded_run_resumes_too(finished):
    assert codes(finished, "fsdp2 stopped") == [[TERMINATED] * 2, [0, 0]], logs(finished, "fsdp2 stopped")
    one, other = checkpoint(finished, "fsdp2"), checkpoint(finished, "fsdp2 stopped")
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


@pytest.mark.slow
def test_indexed_data_goes_on_with_another_number_of_processes(finished):
    assert codes(finished, "moved") == [[TERMINATED] * 2, [0]], logs(finished, "moved")
    assert "resuming on 1 processes what ran on 2" in logs(finished, "moved")
    whole, moved = checkpoint(finished, "whole"), checkpoint(finished, "moved")
    for name, value in whole["state_dict"].items():
        assert torch.allclose(value, moved["state_dict"][name], rtol=2e-4, atol=2e-6), name


@SHARDED
@pytest.mark.slow
def test_a_sharded_run_is_not_resumed_unsharded(finished):
    assert codes(finished, "unsharded") == [[TERMINATED] * 2, [1]]
    assert "saved by 2 processes with fsdp2 and would go on with ddp on 1" in logs(finished, "unsharded")


@pytest.mark.slow
def test_a_bias_that_no_loss_reads_holds_nobody_up(finished):
    assert codes(finished, "biased") == [[0, 0]], logs(finished, "biased")
    assert checkpoint(finished, "biased")["state_dict"]["logit_bias"] == -4


def test_a_process_that_is_killed_ends_the_others_with_a_sentence(finished):
    assert codes(finished, "orphaned") == [[1, -signal.SIGKILL]]
    assert "rank 0 of 2 on" in (told := logs(finished, "orphaned"))
    assert "stops because a process that it waited for has ended" in told


def test_a_rank_that_runs_out_of_memory_in_the_loss_says_so_and_ends_all(finished):
    assert codes(finished, "starved") == [[1, 1]]
    told = (finished / "starved.1.log").read_text()
    found = re.search(
        r"UserError: rank 1 of 2 on \S+ ran out of memory in step 3: .* more were asked for on the CPU "
        r"\(forks\.py:\d+ in broken\); raise train\.accum_freq, (.*); its traceback is in (.*)\n",
        told,
    )
    assert found is not None, told
    assert "or lower train.batch_size or data.image_size and start over with --overwrite" in found[1]
    assert found[2] == str(finished / "starved" / "error.rank1.txt")
    assert "allocate memory" in (finished / "starved" / "error.rank1.txt").read_text()
    assert "UserError: rank 0 of 2 on " in (first := (finished / "starved.0.log").read_text())
    assert "stops because a process that it waited for has ended" in first
    assert not (finished / "starved" / "error.txt").exists()


@pytest.mark.slow
def test_a_rank_that_stalls_in_the_loss_is_named_by_the_other(finished):
    assert codes(finished, "stalled") == [[0, 0]], logs(finished, "stalled")
    assert NAMED.search((finished / "stalled.0.log").read_text()), logs(finished, "stalled")


def test_what_one_process_refuses_ends_all_of_them(finished):
    assert codes(finished, "refused") == [[1, 1]]
    assert "nowhere.csv" in logs(finished, "refused")


def test_all_processes_end_where_another_run_holds_the_folder(finished):
    assert codes(finished, "held") == [[1, 1]], logs(finished, "held")
    held = f"another training is running in {finished / 'held'} (process "
    assert f"UserError: {held}" in (finished / "held.0.log").read_text()
    assert f"stops because rank 0 cannot begin: {held}" in (finished / "held.1.log").read_text()
    assert [path.name for path in (finished / "held").iterdir()] == ["run.lock"]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"batch_size is 16, which 3 processes with .* 1 cannot .* multiple of 3"):
        Trainer(tiny.recipe(), tmp_path, torch.device("cpu"), DistributedContext(1, 1, 3))


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UserError, match=r"WORLD_SIZE is set but RANK, LOCAL_RANK not; .* torchrun"),
        init_distributed("cpu"),
    ):
        pass
