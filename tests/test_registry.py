"""Terms of other packages: found by their entry points, imported when they are first asked for, and by every user."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

import kdlosses
from kdlosses import registry, term_checks
from tests.problems import Problem

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_loss"


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Put a package on the path that names `term` of `module`, whose text is given."""
    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    monkeypatch.setattr(term_checks, "_tried", set())

    def install(text: str, term: str, package: str = "own-loss", module: str = "own_loss") -> None:
        site = tmp_path / package
        info = site / f"{package.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(text, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[kdlosses.losses]\n{term} = {module}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


@pytest.fixture
def installed(install):
    install((EXAMPLE / "own_loss.py").read_text(encoding="utf-8"), "image_crd")


def test_a_name_is_enough(installed):
    assert "image_crd" in kdlosses.available_losses() and "image_crd" in kdlosses.available_terms()
    assert "own_loss" not in sys.modules, "imported before anybody asked for it"
    loss = kdlosses.build("image_crd", student_dim=4, teacher_dim=6)
    assert repr(loss) == "DistillLoss(1 image_crd, variant='paper', backend='auto')"
    assert kdlosses.default_weights()["image_crd"] == 0.5


def test_in_a_sum_and_for_several_teachers(installed):
    inputs = Problem().inputs()
    weights = {"contrastive": 1.0, "image_crd": 2.0}
    alone = kdlosses.build("image_crd")(**inputs)
    assert kdlosses.CLIPKDLoss(weights)(**inputs, output_dict=True)["image_crd_loss"] == 2 * alone
    several = kdlosses.MultiTeacherLoss(weights, student_dim=6, teacher_dims=[6, 6])
    twice = {key: [value, value] for key, value in inputs.items() if key.startswith("dist_")}
    torch.testing.assert_close(several(**inputs | twice, output_dict=True)["image_crd_loss"], 2 * alone)


def test_in_recipes(installed):
    from harness.config import LossConfig, terms

    terms.known_terms.cache_clear()
    try:
        config = LossConfig(weights={"image_crd": "default"})
        assert config.weights == {"image_crd": 0.5} and config.reading("teacher_scale") == ("image_crd",)
        assert config.reading("scale") == ("image_crd",)
    finally:
        terms.known_terms.cache_clear()


def test_in_the_benchmark(installed):
    from harness.bench.losses.cases import known_losses
    from harness.bench.losses.lower_bound import matmul_lower_bound
    from kdlosses.cost import MatrixProducts

    assert "image_crd" in known_losses()
    assert matmul_lower_bound(["image_crd"], "paper", 8, 8) == MatrixProducts(4, 6)


def test_a_term_that_a_program_registers_is_known_to_its_recipes(monkeypatch):
    from harness.config import LossConfig

    monkeypatch.setattr(registry, "_TERMS", dict(registry._TERMS))
    body = {"name": "mine", "needs": frozenset({"scale"}), "compute": lambda *_: None}
    kdlosses.register(type("Mine", (kdlosses.Term,), body))
    assert LossConfig(weights={"mine": 1}).reading("scale") == ("mine",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nowhere", "loss term 'mine', own_loss of package own-loss, cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("", "own_loss of package own-loss was to define a loss term 'mine' and does not"),
    ],
    ids=["missing", "raises", "empty"],
)
def test_a_package_that_is_broken_says_so_to_those_alone_who_ask_for_it(install, text, says):
    install(text, "mine")
    with pytest.raises(ValueError, match=says):
        kdlosses.build("mine")
    kdlosses.CLIPKDLoss({"crd": 1.0})
    with pytest.raises(ValueError, match=r"loss 'mime' is unknown; .*did you mean 'mine'"):
        kdlosses.build("mime")


def test_two_packages_with_one_name_are_both_named(install):
    install("", "mine", "first", "one")
    install("", "mine", "second", "two")
    with pytest.raises(ValueError, match="defined by several packages: two of package second, one of package first"):
        kdlosses.build("mine")


def test_a_package_cannot_replace_a_term_of_ours(install):
    install("raise SystemExit", "crd")
    assert isinstance(kdlosses.build("crd"), kdlosses.CRDLoss)


@pytest.mark.slow  # three processes, and a compiler
def test_the_example_as_pip_installs_it(tmp_path):
    import os
    import subprocess

    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *flags, str(source)], check=True)
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(source), str(source)]
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{Path(kdlosses.__file__).parents[1]}"}
    done = subprocess.run(test, cwd=source, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
