"""Relations: scaled similarities between two sets of embeddings, described but not computed.

Letters used in this package: B pairs, N rows of queries, M rows of keys, D embedding width (Ds student, Dt teacher).
A loss names the relations it needs; only a backend computes them, tile by tile or whole. That is what lets a backend
stream over the keys and never hold an N x M matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdlosses.rows import Rows

# What the entry of row i at column ``offset + i`` is.
DIAGONALS = ("positive", "excluded", "none")


def no_logit(dtype: torch.dtype) -> float:
    """A logit whose softmax is zero beside any other; finite, so that no difference of two of them is undefined."""
    return torch.finfo(dtype).min / 2


@dataclass(eq=False)  # compared by identity: two terms share work when they name the same object
class Relation:
    """The matrix ``scale * queries @ keys.T`` of unit rows; row ``i`` has its positive at column ``offset + i``.

    With ``diagonal="excluded"`` that entry is left out of the row's softmax, and the row has no positive: embeddings
    against themselves, whose similarity of 1 says nothing and outweighs all others. With ``"none"`` the entry is like
    any other: queries against keys that are no batch, of any number.

    Args:
        queries: N rows of width D.
        keys: M rows of width D.
        scale: 0-d, multiplicative (already exponentiated), in the dtype of the computation.
        offset: column of the first row's positive; not 0 only where rows are sharded.
        source: the relation that this one is the transpose of, so that one product serves both directions.
        like: the relation that this one is a constant copy of, so that one product serves both.
        diagonal: one of `DIAGONALS`.

    Raises:
        ValueError: for another ``diagonal``.
    """

    queries: Rows
    keys: Rows
    scale: Tensor
    offset: int = 0
    source: Relation | None = None
    like: Relation | None = None
    diagonal: str = "positive"

    def __post_init__(self) -> None:
        if self.diagonal not in DIAGONALS:
            raise ValueError(f"a relation's diagonal must be one of {', '.join(DIAGONALS)}, got {self.diagonal!r}")

    @property
    def shape(self) -> tuple[int, int]:
        """N and M."""
        # Not len(): of symbolic shapes it makes constants.
        return self.queries.values.shape[0], self.keys.values.shape[0]

    def matrix(self) -> Tensor:
        """The whole matrix, for definitions; backends make tiles of it. Excluded entries are as low as can be."""
        logits = self.scale * self.queries.normalized() @ self.keys.normalized().T
        if self.diagonal != "excluded":
            return logits
        rows = torch.arange(len(logits), device=logits.device)
        return logits.index_put((rows, rows + self.offset), logits.new_full((), no_logit(logits.dtype)))

    def transposed(self) -> Relation:
        """The same similarities read from the keys' side."""
        # Sharded rows see all keys, but the keys' side would see these rows alone: there, make a relation a direction.
        if self.offset or self.shape[0] != self.shape[1]:
            raise ValueError(f"only a square relation has a transpose, not one of {self.shape[0]} x {self.shape[1]}")
        like = None if self.like is None else self.like.transposed()
        return Relation(self.keys, self.queries, self.scale, source=self, like=like, diagonal=self.diagonal)

    def constant(self) -> Relation:
        """The same numbers, which give nothing a gradient: what a KL takes for its teacher."""
        assert self.source is None, "a transpose is made of a constant, not a constant of a transpose"
        queries, keys, scale = self.queries.constant(), self.keys.constant(), self.scale.detach()
        return Relation(queries, keys, scale, self.offset, like=self.like or self, diagonal=self.diagonal)

    def excluded(self) -> Relation:
        """The same similarities with the diagonal left out of every softmax."""
        assert self.source is None and self.like is None, "a transpose or a copy is made of what leaves it out"
        return Relation(self.queries, self.keys, self.scale, self.offset, diagonal="excluded")

    @property
    def computed(self) -> Relation:
        """The relation whose numbers serve this one, transposed or as they are."""
        relation = self.source or self
        return relation.like or relation


@dataclass(eq=False)
class Pairs:
    """B matching image and text embeddings with their temperature and bias, and the two relations between them.

    Args:
        image: B rows of width D.
        text: B rows of width D.
        scale: 0-d logit scale, or None where no term reads these pairs' relations.
        bias: 0-d, what a sigmoid adds to all logits, or None where it was not given; the relations are without it.
        lacks: why there are no relations, where there are none.
    """

    image: Rows
    text: Rows
    scale: Tensor | None
    bias: Tensor | None = None
    lacks: str = "these pairs have no scale, and so no relations"

    def __post_init__(self) -> None:
        self._at: dict[tuple[float, bool], Pairs] = {}
        if self.scale is not None:
            i2t = Relation(self.image, self.text, self.scale)
            self._relations = i2t, i2t.transposed()

    @property
    def i2t(self) -> Relation:
        """Images against texts."""
        return self._both()[0]

    @property
    def t2i(self) -> Relation:
        """Texts against images: the same similarities from the other side."""
        return self._both()[1]

    def _both(self) -> tuple[Relation, Relation]:
        if self.scale is None:
            raise ValueError(self.lacks)
        return self._relations

    def without_bias(self) -> Pairs:
        """The same pairs and relations, for who is not to read the bias."""
        found = Pairs(self.image, self.text, None, None)
        found.scale, found._at = self.scale, self._at
        found._relations = self._relations
        return found

    def at(self, scale: float | None) -> Pairs:
        """The same pairs at a constant scale, one object for each so that its work is shared; themselves for None."""
        if scale is None:
            return self
        key = scale, self.bias is None
        if key not in self._at:
            constant = torch.full((), scale, dtype=self.image.dtype, device=self.image.values.device)
            self._at[key] = Pairs(self.image, self.text, constant, self.bias)
        return self._at[key]
