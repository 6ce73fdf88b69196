"""Threads and GPUs, by a torch that is made up."""

import subprocess
import sys
import types

import pytest

from harness.doctor import devices
from harness.doctor.devices import check_threads, describe_device, nvidia_smi, unseen_gpu

SMI = [["A GPU", "570.1"]]


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert check_threads(16, 16).level == "ok"
    assert check_threads(2, 1.5).level == "ok"
    row = check_threads(64, 2.5)
    assert (row.level, row.fix) == ("warning", "export OMP_NUM_THREADS=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert "8 (OMP_NUM_THREADS=8) on 4 cores" in check_threads(8, 4).says


@pytest.mark.parametrize(
    ("hidden", "cuda", "level", "fix"),
    [
        ("", "13.0", "warning", "unset it"),
        ("-1", "13.0", "warning", "unset it"),
        (None, None, "fault", "builds for CUDA"),
        (None, "13.0", "fault", "update the driver to one for CUDA 13.0"),
    ],
)
def test_a_gpu_that_torch_does_not_see(monkeypatch, hidden, cuda, level, fix):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    row = unseen_gpu(SMI, "2.14.1", cuda)
    assert row.level == level
    assert fix in row.fix
    assert "A GPU, driver 570.1" in row.says


def fake_torch(kind: str, free: float) -> types.SimpleNamespace:
    found = types.SimpleNamespace(name="A GPU", major=9, minor=0)

    def memory(index: int) -> tuple[int, int]:
        if index == 1:
            raise RuntimeError("CUDA error: device is busy\nmore")
        return int(free * 2**30), 80 * 2**30

    return types.SimpleNamespace(
        get_num_threads=lambda: 1,
        __version__="2.14.1",
        version=types.SimpleNamespace(hip=None, cuda="13.0"),
        cuda=types.SimpleNamespace(get_device_properties=lambda _: found, mem_get_info=memory),
        accelerator=types.SimpleNamespace(
            is_available=lambda: bool(kind),
            current_accelerator=lambda: types.SimpleNamespace(type=kind),
            device_count=lambda: 2,
        ),
    )


def test_each_gpu_is_a_row_and_one_that_fails_is_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch("cuda", 70))
    monkeypatch.setattr(devices, "nvidia_smi", lambda: SMI)
    _, good, bad = devices.check_devices(None)
    assert (good.check, good.level) == ("cuda:0", "ok")
    assert good.says == "A GPU, 9.0, 70.0 of 80.0 GiB free, driver 570.1, CUDA 13.0"
    assert (bad.check, bad.level, bad.says) == ("cuda:1", "fault", "RuntimeError: CUDA error: device is busy")


def test_other_devices(monkeypatch):
    assert describe_device(fake_torch("cuda", 10), "cuda", 0, SMI).level == "warning", "taken by another program"
    row = describe_device(fake_torch("mps", 0), "mps", 0, [])
    assert (row.check, row.says) == ("mps:0", "accelerator: the losses run on it, clipkd itself on cpu and cuda only")
    monkeypatch.setitem(sys.modules, "torch", fake_torch("", 0))
    monkeypatch.setattr(devices, "nvidia_smi", list)
    assert [row.says for row in devices.check_devices(None)][1] == "no GPU: everything runs on the CPU"
    monkeypatch.setattr(devices, "nvidia_smi", lambda: SMI)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [row.level for row in devices.check_devices(None)][1:] == ["fault"]


def test_nvidia_smi_that_fails_tells_nothing(monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/bin/nvidia-smi")
    answers = iter(
        [
            subprocess.CompletedProcess([], 0, "A GPU, 570.1\nA GPU, 570.1\n"),
            subprocess.CompletedProcess([], 9, "NVIDIA-SMI has failed, whatever\n"),
            subprocess.TimeoutExpired("nvidia-smi", 20),
        ]
    )

    def run(*_: object, **__: object) -> subprocess.CompletedProcess:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(devices.subprocess, "run", run)
    assert [nvidia_smi(), nvidia_smi(), nvidia_smi()] == [SMI * 2, [], []]
    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    assert nvidia_smi() == []
