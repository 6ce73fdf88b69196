"""What the loader hands out."""

from dataclasses import dataclass

from torch import LongTensor, Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of pairs.

    Attributes:
        images: uint8 [B, 3, S, S], the view that student and teacher share.
        tokens: for each tokenizer, by name, the token ids, int64 [B, L].
        captions: the B captions.
        keys: the B samples' names: the key in the shard, or the path in the CSV.
    """

    images: Tensor
    tokens: dict[str, LongTensor]
    captions: list[str]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)
