"""A stored result is used again only for the very model and set that it is of."""

from __future__ import annotations

import pytest

from harness.config import EvalSet
from harness.evaluate.result_store import EvalResultStore, recorded_set_name

SET = EvalSet.model_validate({"name": "shapes", "kind": "zeroshot", "path": "synthetic:8"})
FINGERPRINT = {"model": "a", "data": "b"}


@pytest.fixture
def store(tmp_path):
    made = EvalResultStore(tmp_path, "student")
    made.write(SET, {"acc1": 0.5}, FINGERPRINT)
    return made


def test_a_result_of_the_same_model_and_set_is_found(store):
    found = store.find(SET, FINGERPRINT)
    assert found is not None and found["acc1"] == 0.5
    assert recorded_set_name(store.path(SET)) == "shapes"


@pytest.mark.parametrize("changed", [{"model": "other"}, {"data": "other"}, {"more": 1}])
def test_a_result_of_another_model_or_set_is_not_used(store, changed):
    assert store.find(SET, {**FINGERPRINT, **changed}) is None


def test_a_result_without_its_fingerprint_is_not_used(store):
    next((store.folder / ".fingerprints").iterdir()).unlink()
    assert store.find(SET, FINGERPRINT) is None
