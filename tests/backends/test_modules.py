"""Losses with a backend of their own: copied, pickled, printed and compiled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from kdlosses import backends
from tests.backends.cases import EVERY, MIXED, Case
from tests.running import assert_same, run

BACKENDS = {
    "chunked": "chunked",
    "dense": "dense",
    "chunk-size-3": backends.create("chunked", chunk_size=3),
}
CLONES = {"copy": copy.deepcopy, "pickle": lambda loss: pickle.loads(pickle.dumps(loss))}
CASE = Case("clip_kd", MIXED, masked=True, weights=EVERY)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("clone", CLONES)
def test_clones_keep_their_backend_and_compute_the_same(clone, backend):
    loss = CASE.loss(BACKENDS[backend], torch.float64)
    twin = CLONES[clone](loss)
    assert repr(twin) == repr(loss)
    found, expected = (run(one, CASE.inputs(torch.float64)) for one in (twin, loss))
    assert torch.equal(found.value, expected.value)
    assert_same(found, expected)


def test_a_loss_prints_its_backend_and_its_options():
    assert "chunk_size=3" in repr(CASE.loss(BACKENDS["chunk-size-3"], torch.float64))
    assert "'dense'" in repr(CASE.loss("dense", torch.float64))


@pytest.mark.slow
def test_one_compiled_graph_of_several_tiles():
    """Four tiles, the last ones ragged; a graph grows with their number, so no more and one term alone."""
    torch._dynamo.reset()
    case = Case("crd", MIXED.with_(batch=3))
    loss, inputs = case.loss(backends.create("chunked", chunk_size=2), torch.float64), case.inputs(torch.float64)
    found = run(torch.compile(loss, fullgraph=True, backend="aot_eager"), inputs)
    assert_same(found, run(loss, inputs))
