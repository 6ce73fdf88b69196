"""Evaluation sets of random pairs: in the layout that real ones have, and gone afterwards."""

from pathlib import Path

import pytest

from harness.config import EvalSet
from harness.evaluate.layout import inspect_layout
from harness.evaluate.synthetic import synthetic_sets_on_disk


@pytest.mark.parametrize(("kind", "classes"), [("zeroshot", 6), ("retrieval", 0)])
def test_a_synthetic_set_passes_the_checks_of_a_real_one(kind, classes):
    with synthetic_sets_on_disk([EvalSet(name="noise", kind=kind, path="synthetic:7")]) as [written]:
        layout = inspect_layout(written)
        assert (layout.shards, layout.images, layout.classes) == (1, 7, classes)
        assert (written.name, written.kind) == ("noise", kind)
    assert not Path(written.path).exists()


def test_sets_in_folders_stay_as_they_are():
    item = EvalSet(name="real", kind="retrieval", path="data/real")
    with synthetic_sets_on_disk([item]) as written:
        assert written == [item]
