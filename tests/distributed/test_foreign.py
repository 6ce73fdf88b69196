"""Terms of other packages over several processes: equal to one process, or refused on all."""

from __future__ import annotations

import pytest

from tests.distributed import foreign
from tests.distributed.cases import joined
from tests.running import assert_same

pytestmark = pytest.mark.distributed


def test_they_equal_one_process(results):
    found = results(2)["foreign"]
    for number, (weights, expected) in enumerate(zip(foreign.WEIGHTS, foreign.outcomes(0, 1), strict=True)):
        assert_same(joined([one[number] for one in found]), expected)
        assert expected.value.isfinite(), weights


def test_keys_that_nobody_could_gather_are_refused_everywhere(results):
    for message in results(2)["foreign-refused"]:
        assert "rows of its own: with several processes nobody could tell which of them each has" in message
