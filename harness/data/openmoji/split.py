"""The OpenMoji split, as pure functions of code points: no random state, no file order, no library version.

Every emoji that takes a skin tone comes in five images, one for each tone. Of each such base two tones are test,
one is validation and two train, drawn for each base from SHA-256 of its code point. Images without a tone, and
two-person images that mix tones, always train. A student sees a fixed fraction of the training images, drawn for
each image from SHA-256 of its own code point.
"""

import hashlib
from typing import Literal

Split = Literal["train", "val", "test"]

TONES = (1, 2, 3, 4, 5)
NUM_TEST_TONES = 2
NUM_VAL_TONES = 1
STUDENT_FRACTION = 0.25


def uniform(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def tone_order(base: str) -> list[int]:
    """Return the five tones of a base in its own order: test tones first, then validation, then training."""
    return sorted(TONES, key=lambda tone: uniform(f"kdlosses-openmoji-tone:{base}:{tone}"))


def split_of(base: str, tone: int | None) -> Split:
    """Return the split of an image.

    Args:
        base: code point of the emoji without a tone, as in OpenMoji's `skintone_base_hexcode`.
        tone: 1 to 5, or None for an image without a tone or with two of them.
    """
    if tone is None:
        return "train"
    rank = tone_order(base).index(tone)
    if rank < NUM_TEST_TONES:
        return "test"
    return "val" if rank < NUM_TEST_TONES + NUM_VAL_TONES else "train"


def student_sees(hexcode: str, fraction: float = STUDENT_FRACTION) -> bool:
    """Return whether a training image is in the student's part; a larger fraction keeps what a smaller one had."""
    return uniform(f"kdlosses-openmoji-student:{hexcode}") < fraction
