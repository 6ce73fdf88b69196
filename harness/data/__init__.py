"""Training data: sources, decoding, the loader, and augmentation of batches."""

from harness.data.augment import BatchAugment, prepare
from harness.data.batch import Batch
from harness.data.loader import Loader, build_loader

__all__ = ["Batch", "BatchAugment", "Loader", "build_loader", "prepare"]
