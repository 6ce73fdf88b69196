"""The reference training loop: any number of processes, interruptible at any moment."""

from harness.train.trainer import Trainer
from harness.train.training_run import train

__all__ = ["Trainer", "train"]
