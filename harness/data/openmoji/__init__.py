"""OpenMoji 17 as an image-text data set: CC BY-SA 4.0 icons and their human-written annotations."""

from harness.data.openmoji.annotations import ATTRIBUTION
from harness.data.openmoji.builder import build

__all__ = ["ATTRIBUTION", "build"]
