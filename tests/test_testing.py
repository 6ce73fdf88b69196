"""What `kdlosses.testing` finds, and where."""

from __future__ import annotations

import pytest
from torch.nn.functional import normalize

from kdlosses import testing


def fd(image_features, text_features, dist_image_features, dist_text_features, **_):
    pairs = (image_features, dist_image_features), (text_features, dist_text_features)
    return sum((normalize(ours, dim=1) - normalize(theirs, dim=1)).square().mean() for ours, theirs in pairs)


@pytest.mark.slow
def test_a_term_is_held_against_its_formula_on_triton_too(monkeypatch):
    found = testing._on_triton
    testing.check_term("fd", fd, several_processes=False, compiled=False)
    monkeypatch.setattr(testing, "_on_triton", lambda *a: {k: 1.01 * v for k, v in found(*a).items()})
    with pytest.raises(AssertionError, match="fd on triton: the value differs"):
        testing.check_term("fd", fd, several_processes=False, compiled=False)
