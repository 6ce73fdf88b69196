"""What versions and requirements give which row, from metadata that is made up."""

from importlib import metadata

import pytest

from harness.doctor import versions
from harness.doctor.finding import Finding

GOOD = {
    "kdlosses": "0.2.0",
    "torch": "2.14.1",
    "torchvision": "0.29.1",
    "open_clip_torch": "3.3.0",
    "webdataset": "0.2.86",
    "clip_benchmark": "1.6.2",
    "numpy": "2.3.5",
}
ASKED = {
    "kdlosses": [
        "torch>=2.6",
        'numpy<2.4; extra == "harness"',
        'torchvision>=0.21; extra == "harness"',
        'isal>=1.6; platform_machine in "no such machine" and extra == "harness"',
        'accelerate>=1.3; extra == "hugging-face"',
        'torch>=99; extra == "docs"',
    ],
    "torchvision": ["numpy", "torch==2.14.1", 'gdown>=4; extra == "gdown"'],
}


@pytest.fixture
def rows(monkeypatch):
    """The rows for an installation: `GOOD` with changes, of which None is not installed."""

    def examine(**changes: str | None) -> list[Finding]:
        there = {name: version for name, version in (GOOD | changes).items() if version is not None}

        def version(name: str) -> str:
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(versions.metadata, "version", version)
        monkeypatch.setattr(versions.metadata, "requires", lambda name: ASKED.get(name))
        return list(versions.check_versions(None))

    return examine


def problems(found: list[Finding]) -> list[tuple[str, str]]:
    return [(row.level, row.says) for row in found if row.level != "ok"]


def test_a_good_installation_has_two_rows(rows):
    found = rows()
    assert problems(found) == []
    assert "torch 2.14.1, torchvision 0.29.1" in found[0].says
    assert "timm -" in found[0].says, "not installed"
    assert [row.check for row in found] == ["versions", "packages"]


@pytest.mark.parametrize(
    ("changes", "level", "says", "fix"),
    [
        ({"numpy": "2.4.0"}, "fault", "zero-shot evaluation ends in a TypeError", "pip install 'numpy<2.4'"),
        ({"numpy": "2.5.0rc1"}, "fault", "numpy 2.5.0rc1 with clip_benchmark 1.6.2", "pip install 'numpy<2.4'"),
        ({"webdataset": "0.2.87"}, "warning", "stock open_clip_train ends in a KeyError", "webdataset<=0.2.86"),
        ({"webdataset": "1.0.2"}, "warning", "webdataset 1.0.2 with open_clip_torch 3.3.0", "open_clip_train"),
        ({"torch": "2.14.1+cpu"}, "fault", "torch 2.14.1+cpu with torchvision 0.29.1", "the same index"),
        ({"torch": "2.14.1+cu126"}, "warning", "builds of different indexes", "the same index"),
        ({"torch": "2.14.1+cu126", "torchvision": "0.29.1+cu130"}, "warning", "different indexes", "the same index"),
        (
            {"transformers": "5.1.0", "accelerate": "1.2.1"},
            "warning",
            "the Trainer of transformers fails",
            "accelerate>=",
        ),
        ({"accelerate": "1.2.1"}, "warning", "accelerate 1.2.1 is not in the tested range >=1.3", "accelerate>=1.3"),
        (
            {"torch": "2.13.0"},
            "fault",
            "torchvision 0.29.1 asks for torch==2.14.1, and 2.13.0 is inst",
            "torch==2.14.1",
        ),
        (
            {"torchvision": "0.20.0"},
            "fault",
            "torchvision 0.20.0 is not in the tested range >=0.21",
            "torchvision>=0.21",
        ),
        (
            {"numpy": "3.0", "clip_benchmark": "2.0"},
            "warning",
            "numpy 3.0 is not in the tested range <2.4",
            "numpy<2.4",
        ),
        ({"torchvision": None}, "fault", "missing: torchvision", "pip install '.[harness]'"),
        ({"torch": "broken metadata"}, "fault", "missing: torch", "pip install '.[harness]'"),
        ({"kdlosses": None}, "warning", "kdlosses itself is not installed", "pip install '.[harness]'"),
    ],
)
def test_what_does_not_fit_is_one_row_with_what_to_do(rows, changes, level, says, fix):
    (found,) = [row for row in rows(**changes) if row.level != "ok"]
    assert found.level == level
    assert says in found.says
    assert fix in found.fix


def test_a_milder_pair_does_not_hide_a_fault(rows, monkeypatch):
    monkeypatch.setitem(ASKED, "kdlosses", [*ASKED["kdlosses"], 'webdataset>=0.2.100; extra == "harness"'])
    assert [level for level, _ in problems(rows(webdataset="0.2.90"))] == ["warning", "fault"]


def test_both_of_one_index_are_well(rows):
    assert problems(rows(torch="2.14.1+cpu", torchvision="0.29.1+cpu")) == []


def test_this_environment_can_be_read():
    found = list(versions.check_versions(None))
    assert f"torch {metadata.version('torch')}" in found[0].says
    assert not any("missing" in row.says for row in found)
