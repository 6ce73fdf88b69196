"""What a well-kept project has: workflows and hooks run what exists, spelling is checked, versions agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kdlosses
from tests.docs.pages import PAGES, ROOT, read

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), flags=re.M))


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[str]:
    """What a workflow runs, job by job."""
    return [step["run"] for job in load(path)["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_of_the_makefile_and_name_no_index(path):
    made = re.findall(r"\bmake ([\w-]+)", "\n".join(commands(path)))
    assert set(made) <= TARGETS
    assert not re.search(r"index-url|https?://", path.read_text(encoding="utf-8"))
    assert load(path)["permissions"] == {"contents": "read"}


def test_workflows_cover_the_oldest_and_the_newest():
    for name in ("test", "nightly"):
        job = next(iter(load(ROOT / f".github/workflows/{name}.yml")["jobs"].values()))
        assert job["strategy"]["matrix"] == {"python": ["3.10", "3.13"], "torch": ["oldest", "newest"]}
    project, oldest = read("pyproject.toml"), read(".github/constraints/oldest.txt")
    for package in ("torch", "torchvision"):
        (version,) = re.findall(rf'"{package}>=([^",]+)"', project)
        assert f"\n{package}=={version}.*\n" in oldest
    declared = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    assert (declared[0], declared[-1]) == ("3.10", "3.13")


def test_every_target_that_a_page_names_exists():
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", read(page), flags=re.M)
        assert set(named) <= TARGETS, (page, set(named) - TARGETS)


def test_reports_of_bugs_ask_for_what_the_doctor_says():
    (environment,) = [
        part for part in load(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"] if "Environment" in str(part)
    ]
    assert "clipkd doctor" in environment["attributes"]["description"]


def test_hooks_are_the_tools_of_the_environment():
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["entry"].split()[0] for hook in hooks] == [
        ".venv/bin/ruff",
        ".venv/bin/ruff",
        ".venv/bin/mypy",
        ".venv/bin/codespell",
    ]
    for hook in hooks:
        assert shutil.which(Path(hook["entry"].split()[0]).name, path=Path(sys.executable).parent), hook["id"]


def test_spelling():
    codespell = Path(sys.executable).with_name("codespell")
    done = subprocess.run([codespell], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_citation_is_of_the_last_version_that_was_cut():
    cited = load(ROOT / "CITATION.cff")["version"]
    cut = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", read("CHANGELOG.md"), flags=re.M)
    assert cited == cut[0]
    assert kdlosses.__version__.startswith(cut[0]) or kdlosses.__version__ > cut[0]
