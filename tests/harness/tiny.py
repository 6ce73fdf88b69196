"""Models small enough for tests: a ViT student, a wider teacher with another size, mean and context length."""

from __future__ import annotations

from harness.config import Recipe

STUDENT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TEACHER = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
RESNET = {**STUDENT, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}}


def recipe(**sections: object) -> Recipe:
    """A recipe of a few seconds; keyword sections are merged into its own."""
    base: dict[str, object] = {
        "name": "tiny",
        "data": {"train": "synthetic:48", "crop": "resize", "cache": "memory"},
        "student": {"model": "test-tiny-vit-student", "config": STUDENT},
        "train": {"batch_size": 16, "steps": 4, "device": "cpu", "log_every": 2},
    }
    for name, section in sections.items():
        merge = isinstance(section, dict) and isinstance(base.get(name), dict)
        base[name] = {**base[name], **section} if merge else section
    return Recipe.model_validate(base)


DISTILL = {
    "teacher": {"model": "test-tiny-teacher", "config": TEACHER},
    "loss": {"weights": {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}},
}
