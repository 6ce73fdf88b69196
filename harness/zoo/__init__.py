"""Models: the paper's that open_clip lacks, under the released code's names, and how any model is made."""

from harness.zoo.building import build, get_tokenizer
from harness.zoo.names import nearest
from harness.zoo.register import register, register_config

__all__ = ["build", "get_tokenizer", "nearest", "register", "register_config"]
