"""Centroids of cached embeddings, which a bank takes as its keys."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import kdlosses
from harness.errors import UserError
from harness.teachers import centroids as module
from harness.teachers.centroids import centroids, embeddings


def test_they_are_the_middles_of_what_lies_together(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 50)
    generator = torch.Generator().manual_seed(0)
    middles = F.normalize(torch.eye(4, 6) + 0.1, dim=1)
    lengths = 1 + 5 * torch.rand(240, 1, generator=generator)  # of no meaning: the teacher's rows may be of any
    rows = lengths * (middles.repeat(60, 1) + 0.02 * torch.randn(240, 6, generator=generator))
    found = centroids(rows.split(7), 4)
    assert found.shape == (4, 6) and torch.allclose(found.norm(dim=1), torch.ones(4))
    assert ((found @ middles.T).amax(0) > 0.999).all()
    assert torch.allclose(found, centroids(rows.split(31), 4), atol=1e-5), "in whichever pieces they come"


def test_more_centroids_than_embeddings_are_refused():
    with pytest.raises(UserError, match="9 centroids need at least as many embeddings, and the cache has 8"):
        centroids([torch.eye(4), torch.eye(4)], 9)
    with pytest.raises(UserError, match="must be 1 or more, got 0"):
        centroids([torch.eye(4)], 0)


def test_of_a_cache(tmp_path, monkeypatch):
    """Of every view of every image, and of every text."""

    class Meta:
        teacher = "a teacher"

    class Stored:
        meta = Meta

        def parts(self):
            for seed in range(2):
                torch.manual_seed(seed)
                images, texts = torch.randn(5, 2, 6).half(), torch.randn(5, 6).half()
                yield {"ids": torch.arange(5), "image_features": images, "text_features": texts}
            yield {"ids": torch.arange(0)}

    class Opened:
        stores = (Stored(),)

    assert [len(rows) for rows in embeddings(Stored(), "image")] == [10, 10]
    monkeypatch.setattr(module, "open_cache", lambda recipe: Opened)
    module.main(["smoke", str(tmp_path / "out.safetensors"), "--num-keys", "8"])
    keys = load_file(tmp_path / "out.safetensors")
    loss = kdlosses.BankLoss(num_keys=8, student_dim=4, teacher_dim=6)
    loss.set_keys(keys["image"], keys["text"])
    assert torch.equal(loss.bank.text_keys, keys["text"])
    with pytest.raises(UserError, match="--teacher must be 0 to 0, as the recipe has 1, got 1"):
        module.main(["smoke", str(tmp_path / "out.safetensors"), "--num-keys", "8", "--teacher", "1"])
