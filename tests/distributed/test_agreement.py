"""What processes agree on before a loss, by numbers that stand for other processes'."""

from __future__ import annotations

import pytest

from kdlosses.distributed import agreement
from kdlosses.distributed.shard import Shard


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_a_flag_of_any_process_is_everybodys(own, other, monkeypatch):
    monkeypatch.setattr(agreement, "exchange", lambda shard, numbers: [numbers, [1, int(other), numbers[2]]])
    found = agreement.agree(Shard(None, 0, 2), lambda: "value", lambda value: {"name": value}, own)
    assert found == ("value", own or other)
