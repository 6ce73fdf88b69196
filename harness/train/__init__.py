"""The reference training loop: any number of processes, interruptible at any moment."""

from harness.train.run import train
from harness.train.trainer import Trainer

__all__ = ["Trainer", "train"]
