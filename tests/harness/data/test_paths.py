"""Patterns of shards: ranges, globs, folders, and names that look like either."""

from __future__ import annotations

import pytest

from harness.data.paths import expand_shards
from harness.errors import UserError


def names(folder, pattern) -> tuple[list[str], int]:
    found, missing = expand_shards(f"{folder}/{pattern}")
    return [path.removeprefix(f"{folder}/") for path in found], missing


@pytest.mark.parametrize(
    "pattern", ["{00000..00000}.tar", "{00000..00000}*.tar", "{00000,}.tar", "0000{0..0}.tar", "{x,00000}.tar"]
)
def test_patterns_that_give_one_name(tmp_path, pattern):
    (tmp_path / "00000.tar").touch()
    assert names(tmp_path, pattern)[0] == ["00000.tar"]


def test_a_range_of_globs_may_have_gaps(tmp_path):
    for name in ("00000-a.tar", "00002-a.tar", "00002-b.tar"):
        (tmp_path / name).touch()
    assert names(tmp_path, "{00000..00003}*.tar") == (["00000-a.tar", "00002-a.tar", "00002-b.tar"], 2)


@pytest.mark.parametrize("name", ["{0..3}.tar", "[0].tar", "a{b.tar", "*.tar", "c:d#e.tar"])
def test_a_file_of_the_very_name_goes_first(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "0.tar").touch()
    assert names(tmp_path, name) == ([name], 0)


def test_brackets_in_the_folder_of_a_range(tmp_path):
    (tmp_path / "set[1]").mkdir()
    for number in range(3):
        (tmp_path / "set[1]" / f"{number}.tar").touch()
    assert names(tmp_path, "set[1]/{0..2}.tar") == ([f"set[1]/{number}.tar" for number in range(3)], 0)


def test_a_folder_of_packed_shards(tmp_path):
    for name in ("1.tar.gz", "0.tgz", "2.txt"):
        (tmp_path / name).touch()
    assert names(tmp_path, "")[0] == ["0.tgz", "1.tar.gz"]
    (tmp_path / "3.tar").touch()
    assert names(tmp_path, "")[0] == ["3.tar"]


@pytest.mark.parametrize("pattern", ["{0..99999999999}.tar", "{0..9999}{0..9999}.tar", "{a,b{0..9999999}}.tar"])
def test_a_range_without_end_is_refused_at_once(tmp_path, pattern):
    with pytest.raises(UserError, match="names more than 1,000,000 shards"):
        names(tmp_path, pattern)


@pytest.mark.slow
def test_letters_and_alternatives_without_end_are_refused_too(tmp_path):
    with pytest.raises(UserError, match="names more than 1,000,000 shards"):
        names(tmp_path, "{a..z}" * 12)


def test_alternatives_are_added(tmp_path):
    (tmp_path / "1200.tar").touch()
    assert names(tmp_path, "{{0..1199},{1200..2300}}.tar") == (["1200.tar"], 2300)


def test_one_missing_name_of_a_range(tmp_path):
    with pytest.raises(UserError, match=r"no shard of .*\{1\.\.1\}\.tar at .*/1\.tar"):
        names(tmp_path, "{1..1}.tar")
    with pytest.raises(UserError, match="no file matches"):
        names(tmp_path, "{1..1}*.tar")
