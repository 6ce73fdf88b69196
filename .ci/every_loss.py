"""Every loss of an installed kdlosses, each variant on each usable backend, forward and backward; every integration.

    python .ci/every_loss.py [--hide]

An integration must be there, or say in its ImportError which extra to install. --hide makes an environment that has
more look bare: whatever does not come with Python, torch or kdlosses is "not found".
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder

# What `pip install torch` brings, by the names under which it is imported.
TORCH = "torch torchgen functorch triton nvidia cuda sympy mpmath networkx jinja2 markupsafe fsspec filelock setuptools"
BARE = {*TORCH.split(), "typing_extensions", "kdlosses", *sys.stdlib_module_names}
# What users import, and the extra without which it may be missing.
INTEGRATIONS = {
    "attach": None,
    "clip_kd": None,
    "model_adapters": None,
    "hugging_face": "hugging-face",
    "lightning": "lightning",
    "open_clip_train.command": "open-clip",
}


# Of those that cannot be made without.
OPTIONS = {"bank": {"queue_size": 8}}


class BareFinder(PathFinder):
    """Finds what a bare environment has, and nothing else."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As PathFinder's."""
        # sysconfig's module, which has a name of its own on each platform, is in no list of Python's modules.
        bare = name.partition(".")[0] in BARE or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if bare else None


def main() -> None:
    """Run them all, and count."""
    import torch

    import kdlosses

    warnings.simplefilter("ignore", kdlosses.UntrainedParametersWarning)
    usable = [name for name, reason in kdlosses.backends.available().items() if reason is None]
    count = 0
    for name in kdlosses.available_losses():
        for variant in ("paper", "released"):
            # The released AFD has no shape for two widths.
            for dims in [(8, 8)] if (name, variant) == ("afd", "released") else [(8, 8), (6, 8)]:
                for backend in ["auto", *usable]:
                    settings = {"variant": variant, "backend": backend, **widths(*dims), **OPTIONS.get(name, {})}
                    step(torch, kdlosses.build(name, **settings), *dims)
                    count += 1
    absent = [name for name, found in integrations().items() if not found]
    print(f"without their frameworks: {', '.join(absent) or 'none'}")
    print(f"{count} losses from {kdlosses.__file__} with torch {torch.__version__}, backends {', '.join(usable)}")


def integrations() -> dict[str, bool]:
    """Whether each integration can be imported."""
    found = {}
    for name, extra in INTEGRATIONS.items():
        try:
            importlib.import_module(f"kdlosses.integrations.{name}")
        except ImportError as error:
            assert extra and f"pip install '.[{extra}]' in a checkout of kdlosses" in str(error), f"{name}: {error}"
        found[name] = f"kdlosses.integrations.{name}" in sys.modules
    return found


def widths(student: int, teacher: int) -> dict[str, int]:
    return {"student_dim": student, "teacher_dim": teacher}


def step(torch: object, loss: object, student: int, teacher: int) -> None:
    """A forward and a backward pass on random pairs; every input of the student and every parameter gets a gradient."""
    image, text = (torch.randn(6, student, requires_grad=True) for _ in range(2))
    taught = [torch.randn(6, teacher) for _ in range(2)]
    biases = {"logit_bias": torch.tensor(-10.0), "dist_logit_bias": torch.tensor(-9.0)}
    value = loss(image, text, torch.tensor(14.0), *taught, torch.tensor(30.0), **biases)
    value.backward()
    missing = [name for name, p in loss.named_parameters() if p.grad is None]
    assert value.isfinite(), loss
    assert image.grad is not None, loss
    assert not missing, (loss, missing)


if __name__ == "__main__":
    if "--hide" in sys.argv[1:]:
        sys.meta_path[:] = [BuiltinImporter, FrozenImporter, BareFinder]
    main()
