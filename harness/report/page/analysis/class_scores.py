"""Per-class accuracy of a model on a zero-shot set."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import torch
from clip_benchmark.metrics import zeroshot_classification

from harness.config import EvalSet
from harness.errors import UserError
from harness.evaluate.eval_loader import EvalLoader
from harness.evaluate.layout import inspect_layout
from harness.models import LoadedModel

BATCH = 128
# Texts cost less than images; a class has one per prompt template.
TEXTS_PER_IMAGE = 10


@dataclass(frozen=True)
class ClassScores:
    """Per class with images: name, number of images, top-1 in percent, mean probability of the true class."""

    names: list[str]
    images: list[int]
    top1: list[float]
    probability: list[float]


def class_scores(loaded: LoadedModel, item: EvalSet, limit: int, device: torch.device) -> ClassScores:
    """Classify the whole set and average per class.

    Args:
        loaded: the model.
        item: a zero-shot set in a folder.
        limit: maximal number of images.
        device: where to compute.

    Raises:
        UserError: the set is missing or too large.
    """
    layout = inspect_layout(item)
    loader = EvalLoader(item, layout, loaded.preprocess, BATCH, workers=0)
    names, templates = loader.dataset.classes, loader.dataset.templates
    texts = len(names) * len(templates)
    if layout.images is None:
        raise UserError(f"Set {item.name} does not say how many images it has, so its classes were not analyzed")
    if layout.images > limit or texts > limit * TEXTS_PER_IMAGE:
        raise UserError(
            f"Set {item.name} has {layout.images:,} images and {texts:,} texts, more than a report analyzes; "
            f"--max-images {max(layout.images, texts // TEXTS_PER_IMAGE)} includes them"
        )
    model = loaded.model.to(device).eval()
    with patch.object(zeroshot_classification, "tqdm", iter):  # no other way to disable its progress bars
        classifier = zeroshot_classification.zero_shot_classifier(
            model, loaded.tokenizer, names, templates, device.type, amp=False
        )
        logits, labels = zeroshot_classification.run_classification(model, classifier, loader, device.type, amp=False)
    if labels.ndim != 1:
        raise UserError(f"Set {item.name} is multi-label, so there is no per-class top-1")
    return _by_class(names, logits, labels)


def _by_class(names: list[str], logits: torch.Tensor, labels: torch.Tensor) -> ClassScores:
    right = (logits.argmax(dim=1) == labels).double()
    probability = logits.double().softmax(dim=1)[torch.arange(len(labels)), labels]
    counts = torch.bincount(labels, minlength=len(names))
    present = counts.nonzero().flatten().tolist()

    def mean(values: torch.Tensor) -> list[float]:
        sums = torch.zeros(len(names), dtype=torch.float64).index_add_(0, labels, values)
        return [(sums[number] / counts[number]).item() for number in present]

    return ClassScores(
        names=[names[number] for number in present],
        images=[int(counts[number]) for number in present],
        top1=[100 * value for value in mean(right)],
        probability=mean(probability),
    )
