"""Commands that make the same parts of a teacher cache keep out of each other's way."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from harness.errors import UserError
from harness.teachers.build import build_cache
from harness.teachers.locking import lock_caches
from tests.harness.teachers.teacher_caches import data, parts, recipe

REFUSED = r"another clipkd teacher precompute is writing to .*\(process \d+ on .*; wait .* or give both .* --shard"


@pytest.mark.parametrize(
    ("shard", "shares"),
    [((1, 1), True), ((1, 2), True), ((2, 2), False), ((1, 4), True), ((2, 4), False), ((3, 4), True), ((2, 3), True)],
)
def test_shards_that_share_a_part_exclude_each_other(tmp_path, shard, shares):
    folders = [tmp_path / "a", tmp_path / "b"]
    expected = pytest.raises(UserError, match=REFUSED) if shares else nullcontext()
    with lock_caches(folders[:1], 1, 2), expected, lock_caches(folders, *shard):
        pass
    with lock_caches(folders, *shard):
        pass


def test_a_second_command_is_refused_unless_nothing_is_left_to_do(tmp_path):
    wanted = recipe(data("shards", tmp_path), tmp_path)
    (folder,) = build_cache(wanted, shard="1/2").folders
    made = parts(tmp_path)
    with lock_caches([folder], 1, 1):
        with pytest.raises(UserError, match=REFUSED):
            build_cache(wanted)
        assert parts(tmp_path) == made
        assert build_cache(wanted, shard="1/2").kept == 2
    with lock_caches([folder], 1, 2):
        assert build_cache(wanted, shard="2/2").written == 1
    assert build_cache(wanted).kept == 3
