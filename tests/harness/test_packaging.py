"""The distribution: what a wheel holds, and that an installed package finds its recipes."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASSETS = [path.relative_to(ROOT) for path in (ROOT / "harness" / "assets").rglob("*") if path.is_file()]
RECIPES = [path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.yaml")]

EVERY_LOSS = ROOT / ".ci" / "every_loss.py"
INTEGRATIONS = {"attach", "clip_kd", "hugging_face", "lightning", "model_adapters", "open_clip_train"}
# The last two are there so that they could get into the wheel.
NEEDED = ("kdlosses", "harness", "recipes", "pyproject.toml", "setup.py", "README.md", "LICENSE", "docs", "examples")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The content of a wheel built from a copy of this checkout, unpacked as pip would."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        wheel.extractall(work / "site")
    return work / "site"


def test_the_wheel_holds_code_assets_and_recipes(installed):
    files = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    code = {path.relative_to(ROOT) for name in ("kdlosses", "harness") for path in (ROOT / name).rglob("*.py")}
    recipes = {Path("harness") / path for path in RECIPES}
    assert len(RECIPES) >= 5
    assert code | set(ASSETS) | recipes <= files
    assert Path("kdlosses/py.typed") in files


def test_the_wheel_holds_nothing_else(installed):
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"kdlosses", "harness"}


def test_the_wheel_holds_the_integrations(installed):
    names = {path.stem for path in (installed / "kdlosses" / "integrations").iterdir()}
    assert names >= INTEGRATIONS


@pytest.mark.slow
def test_every_loss_runs_where_there_is_torch_alone(installed, tmp_path):
    """As in an environment with nothing else; `make check-wheel` makes a real one."""
    environment = {"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["TRITON_INTERPRET"] = "1"  # for which triton needs numpy: a reason why not, no traceback
    done = subprocess.run(
        [sys.executable, EVERY_LOSS, "--hide"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "UntrainedParametersWarning" not in done.stderr
    hidden, counted = done.stdout.splitlines()
    assert hidden == "without their frameworks: hugging_face, lightning"
    assert f"losses from {installed}/kdlosses/__init__.py" in counted
    assert int(counted.split()[0]) >= 2 * 2 * 2 * 8


def test_an_installed_package_finds_its_recipes(installed, tmp_path):
    code = "import harness.config as c; print(c.recipes_dir()); print(c.load_recipe('openmoji/clipkd').name)"
    environment = {"PYTHONPATH": str(installed), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / "harness" / "recipes"), "openmoji-clipkd"]


def test_the_bare_package_asks_for_torch_alone(installed):
    metadata = next(installed.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert [line for line in required if "extra ==" not in line] == ["Requires-Dist: torch>=2.6"]
    extras = {line.partition(":")[2].strip() for line in metadata.splitlines() if line.startswith("Provides-Extra:")}
    assert extras == {"docs", "harness", "hugging-face", "lightning", "open-clip", "test"}
