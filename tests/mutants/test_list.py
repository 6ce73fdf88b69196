"""The committed list of mutants fits today's code and covers what promises exactness."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.mutant import ROOT, Mutant, read, write
from tests.mutants.related import targets

MUTANTS = read()
# Parts of which every folder or file must have mutants.
EXACT = [
    *(f"kdlosses/{part}" for part in ("backends", "distributed", "integrations", "losses", "tiles")),
    *(f"harness/{part}" for part in ("data", "evaluate", "teachers", "train")),
]


def test_there_are_at_least_150():
    assert len(MUTANTS) >= 150
    assert len({mutant.key for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("part", EXACT)
def test_every_exact_part_has_mutants(part):
    assert sum(mutant.file.startswith(f"{part}/") for mutant in MUTANTS) >= 5


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_every_mutant_is_found_and_is_other_code(file):
    """Lines may move (`make mutants ARGS=--relocate` updates their numbers); what is replaced must be there."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for mutant in (mutant for mutant in MUTANTS if mutant.file == file):
        faulty = ast.parse(mutant.applied(text))  # a SyntaxError would be killed by anything
        assert ast.dump(faulty) != ast.dump(ast.parse(text)), mutant.name


def test_tests_are_found_for_every_mutant():
    for mutant in MUTANTS:
        found = targets(mutant)
        assert found, mutant.name
        assert all((ROOT / path).exists() for path in found)


def test_a_mutant_whose_line_moved_is_relocated():
    mutant = Mutant("a.py", 1, "x + 1", "x - 1", "why")
    assert mutant.relocated("import y\n\nz = x + 1\n").line == 3
    assert mutant.applied("import y\n\nz = x + 1\n") == "import y\n\nz = x - 1\n"
    with pytest.raises(ValueError, match="rewrite this mutant"):
        mutant.relocated("nothing\n")


def test_the_tests_asked_first_are_the_nearest():
    mutant = Mutant("kdlosses/tiles/walk.py", 1, "", "", "")
    assert Path(targets(mutant)[0]).parts[:2] == ("tests", "backends")


def test_what_is_written_is_what_is_read(tmp_path):
    write(MUTANTS, tmp_path / "list.jsonl")
    assert read(tmp_path / "list.jsonl") == MUTANTS
