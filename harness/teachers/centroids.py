"""Centroids of cached teacher embeddings, as keys for a bank of kdlosses.

``python -m harness.teachers.centroids RECIPE OUT.safetensors --num-keys 4096`` reads the teacher cache of a recipe
(`clipkd teacher precompute`) and writes the tensors ``image`` and ``text``, each K x D: the unit centroids of the
teacher's image embeddings and of its text embeddings, by mini-batch k-means of unit rows. Then, with
``safetensors.torch.load_file``, ``loss.set_keys(keys["image"], keys["text"])``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from harness.config import load_recipe
from harness.errors import UserError
from harness.teachers.opening import open_cache
from harness.teachers.store import Store
from harness.weights.tensor_files import save_tensors

_BLOCK = 65536  # rows of one step, so that memory is bounded whatever the cache


def main(arguments: list[str]) -> None:
    """Write the centroids of both sides."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-keys", type=int, required=True, help="K, the number of centroids of each side")
    parser.add_argument("--teacher", type=int, default=0, help="which of several teachers, from 0")
    parser.add_argument("--set", action="append", default=[], help="change a key of the recipe, as in clipkd train")
    given = parser.parse_args(arguments)
    recipe = load_recipe(given.recipe, given.set)
    stores = open_cache(recipe).stores
    if not 0 <= given.teacher < len(stores):
        raise UserError(
            f"--teacher must be 0 to {len(stores) - 1}, as the recipe has {len(stores)}, got {given.teacher}"
        )
    store = stores[given.teacher]
    found = {side: centroids(embeddings(store, side), given.num_keys, recipe.seed) for side in ("image", "text")}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(given.out, found, {"teacher": store.meta.teacher})


def embeddings(store: Store, side: str) -> Iterator[Tensor]:
    """All embeddings of ``side`` in a teacher's cache, ``[n, D]`` at a time; of an image, those of all its views."""
    for tensors in store.parts():
        if len(tensors["ids"]):
            yield tensors[f"{side}_features"].float().flatten(0, -2)


def centroids(rows: Iterable[Tensor], num_keys: int, seed: int = 0) -> Tensor:
    """``[num_keys, D]`` unit centroids of unit rows; the same for the same rows and seed.

    Args:
        rows: ``[n, D]`` at a time, of any length.
        num_keys: K.
        seed: of the first centroids.

    Raises:
        UserError: there are fewer rows than centroids, or none are asked for.
    """
    if num_keys < 1:
        raise UserError(f"the number of centroids must be 1 or more, got {num_keys}")
    means, count = MiniBatchKMeans(num_keys, random_state=seed, n_init=1), 0
    for block in _blocks(rows, max(num_keys, _BLOCK)):
        count += len(block)
        if count < num_keys:
            break
        means.partial_fit(F.normalize(block, dim=1).numpy())
    if count < num_keys:
        raise UserError(f"{num_keys} centroids need at least as many embeddings, and the cache has {count}")
    return F.normalize(torch.from_numpy(means.cluster_centers_).float(), dim=1)


def _blocks(rows: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows in blocks of ``size``; the last is shorter."""
    held: list[Tensor] = []
    for one in rows:
        held += one.split(size)
        while sum(map(len, held)) >= size:
            whole = torch.cat(held)
            yield whole[:size]
            held = [whole[size:]]
    rest = torch.cat(held) if held else torch.empty(0, 0)
    if len(rest):
        yield rest


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
