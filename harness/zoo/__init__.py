"""The paper's models that open_clip lacks, under the released code's names."""

from harness.zoo.names import nearest
from harness.zoo.register import register

__all__ = ["nearest", "register"]
