"""Entries of data.train beyond a path: several in one text, roots, weights, and shards that are not on a disk."""

from __future__ import annotations

import functools
import json
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import which

import pytest

from harness.config import DataConfig, Recipe, RecipeError, dump_recipe
from harness.config.load import load_recipe
from harness.data import remote
from harness.data.entries import entries
from harness.data.remote import check_remote, opener
from harness.data.samples import SkippedSample
from harness.data.shards import ShardSource
from harness.errors import UserError
from tests.harness import tiny
from tests.harness.data.pairs import load, pair, take, write_csv, write_shards, write_tar


def paths(*train, **options) -> list[str]:
    return [entry.path for entry in entries(DataConfig(train=train, **options))]


def test_commas_separate_outside_braces():
    assert paths("cc3m_train.csv,cc12m.csv") == ["cc3m_train.csv", "cc12m.csv"]
    assert paths("a/{0,1}.tar, b/{2..3}.tar", "c") == ["a/{0,1}.tar", "b/{2..3}.tar", "c"]
    assert paths({"path": "a.csv,b.csv", "weight": 2}) == ["a.csv", "b.csv"]


def test_a_command_and_an_existing_name_are_not_cut(tmp_path):
    assert paths("pipe:cat a,b | tee c,d") == ["pipe:cat a,b | tee c,d"]
    named = write_csv(tmp_path, 1).rename(tmp_path / "a,b.csv")
    assert paths(str(named)) == [str(named)]


@pytest.mark.parametrize("text", ["a.csv,", ",a.csv", "a.csv,,b.csv"])
def test_nothing_between_commas_is_refused(text):
    with pytest.raises(UserError, match="nothing before, between or after its commas"):
        paths(text)


def test_two_files_in_one_text_are_read(tmp_path):
    first, second = write_csv(tmp_path / "a", 3), write_csv(tmp_path / "b", 2, ",")
    assert sorted(take(load(f"{first},{second}", batch_size=5), 1)) == [0, 0, 1, 1, 2]


def test_each_csv_has_its_root(tmp_path):
    path = write_csv(tmp_path / "images_of_a", 3)
    write_csv(tmp_path / "images_of_b", 5)
    for name, rows in (("a", range(3)), ("b", range(3, 5))):
        lines = ["filepath,title", *(f"images/{number}.png,number {number}" for number in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    train = [
        str(tmp_path / "a.csv"),
        {"path": str(tmp_path / "b.csv"), "root": str(tmp_path / "images_of_b")},
    ]
    loader = load(train, batch_size=5, root=str(path.parent))
    assert sorted(take(loader, 1)) == list(range(5))
    with pytest.raises(UserError, match=r"data\.root: no folder at .*nowhere"):
        load([{"path": str(tmp_path / "b.csv"), "root": str(tmp_path / "nowhere")}])


@pytest.mark.parametrize("entry", ["synthetic:9", "shards"])
def test_a_root_where_it_means_nothing_is_refused(tmp_path, entry):
    path = write_shards(tmp_path, 8, per_shard=4) if entry == "shards" else entry
    with pytest.raises(UserError, match="has a root, which only image paths in a CSV have"):
        load([{"path": str(path), "root": str(tmp_path)}])


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("weight", [1.0, 2.0, 0.5, 2.5])
def test_an_epoch_draws_each_sample_by_its_weight(tmp_path, weight, cache):
    write_csv(tmp_path, 16)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    for name, part in (("a", lines[1:9]), ("b", lines[9:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *part]))
    train = [str(tmp_path / "a.csv"), {"path": str(tmp_path / "b.csv"), "weight": weight}]
    loader = load(train, cache=cache)
    assert loader.num_samples == 8 + 8 * weight
    seen = []
    for _ in range(3):
        batches = [take(loader, 1) for _ in range(loader.num_samples // 4)]
        assert all(len(set(batch)) == 4 for batch in batches), "no pair twice in a batch"
        drawn = Counter(number for batch in batches for number in batch)
        assert all(drawn[number] == 1 for number in range(8))
        assert sum(drawn[number] for number in range(8, 16)) == 8 * weight
        assert {drawn[number] - int(weight) for number in range(8, 16)} <= ({0} if weight.is_integer() else {0, 1})
        seen.append(tuple(sorted(drawn.items())))
    assert weight.is_integer() or len(set(seen)) == 3, "another fraction in each epoch"


def test_a_second_draw_in_an_epoch_has_another_crop(tmp_path):
    from tests.harness.data.test_loader import noisy_csv

    noisy_csv(tmp_path)
    for cache in ("none", "memory"):
        options = {"crop": "random_resized", "crop_scale": (0.3, 0.9), "tokenizers": {}, "cache": cache}
        loader = load([{"path": str(tmp_path / "pairs.csv"), "weight": 2}], batch_size=8, **options)
        first, second = next(loader), next(loader)
        order = [second.keys.index(key) for key in first.keys]
        assert not any((a == b).all() for a, b in zip(first.images, second.images[order], strict=True))


def test_shards_are_drawn_by_weight(tmp_path):
    write_tar(tmp_path / "a.tar", map(pair, range(4)))
    for shard in range(1, 5):
        write_tar(tmp_path / "b" / f"{shard}.tar", map(pair, range(4 * shard, 4 * shard + 4)))
    train = [{"path": str(tmp_path / "a.tar"), "weight": 2}, {"path": str(tmp_path / "b"), "weight": 0.5}]
    loader, seen = load(train), Counter()
    for _ in range(6):
        batches = [take(loader, 1) for _ in range(4)]
        assert all(len(set(batch)) == 4 for batch in batches)
        seen.update(number for batch in batches for number in batch)
    assert seen.keys() == set(range(20)), "another half in each epoch"
    assert min(seen[number] for number in range(4)) > 8, "twice in most of six epochs"


def test_a_weight_too_small_for_its_source_is_refused(tmp_path):
    train = [{"path": str(write_shards(tmp_path, 8, per_shard=4)), "weight": 0.1}]
    with pytest.raises(UserError, match=r"weight 0.1 leaves none of the 2 shards of .* to an epoch; raise it to 0.5"):
        load(train)


def test_weights_that_no_batch_can_satisfy_still_give_batches_of_different_pairs(tmp_path):
    """One pair nine times an epoch beside eleven others: it cannot come once a batch."""
    first, second = write_csv(tmp_path / "a", 1), write_csv(tmp_path / "b", 12)
    second.write_text("\n".join(second.read_text().splitlines()[:1] + second.read_text().splitlines()[2:]))
    loader = load([{"path": str(first), "weight": 9}, str(second)])
    for _ in range(15):
        assert len(set(take(loader, 1))) == 4


def test_entries_survive_a_recipe_file(tmp_path):
    train = ["a.csv,b.csv", {"path": "c.csv", "root": "there", "weight": 2}]
    recipe = tiny.recipe(data={"train": train})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert recipe.data.train[0] == "a.csv,b.csv"
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert tiny.recipe(data={"train": {"path": "c.csv"}}).data.train[0].weight == 1


@pytest.mark.parametrize(
    ("train", "words"),
    [("[{path: a, wieght: 2}]", "unknown key data.train[0].wieght; did you mean data.train[0].weight?"),
     ("[{path: a, weight: 0}]", "data.train[0].weight must be greater than 0, got 0"),
     ("[{weight: 1}]", "data.train[0].path is missing"),
     ("[a, 3]", "data.train[1] must be text, got 3; or a mapping with the keys path, root and weight"),
     ("['']", "data.train[0] must be a text that is not empty")],
)  # fmt: skip
def test_wrong_entries_are_refused_by_their_place(tmp_path, train, words):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny.recipe()))
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml", [f"data.train={train}"])
    assert words in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_through_a_command(tmp_path, workers):
    write_shards(tmp_path, 12, per_shard=3)
    train = f"pipe:cat {tmp_path}/{{00000..00003}}.tar"
    assert set(take(load(train, workers=workers), 9)) == set(range(12))


def test_a_missing_remote_shard_is_a_broken_one(tmp_path):
    write_shards(tmp_path, 12, per_shard=3)
    loader = load(f"pipe:cat {tmp_path}/{{00000..00004}}.tar 2>/dev/null", log=tmp_path / "skipped.jsonl")
    assert set(take(loader, 9)) == set(range(12))
    assert loader.skipped.counts == {"broken_shard": 1}
    (line,) = map(json.loads, (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert line["shard"].endswith("00004.tar 2>/dev/null")
    assert line["reason"] == "the command could not read it and ended with exit code 1"


@pytest.mark.parametrize(("length", "left"), [(4096, 2), (3400, 1), (10240, 3)])
def test_a_command_that_fails_makes_a_broken_shard_wherever_it_stops(tmp_path, length, left):
    """4096 bytes are two whole pairs, which look like a tar that ends there; 3400 lack the second caption."""
    shard = write_tar(tmp_path / "0.tar", map(pair, range(3)))
    assert shard.stat().st_size == 10240
    broken: list[SkippedSample] = []
    source = ShardSource([f"pipe:head -c {length} {shard}; sleep 0.2; exit 3"])
    assert len(list(source.read([0], broken.append))) == left
    assert [bad.reason for bad in broken] == ["the command could not read it and ended with exit code 3"]
    assert len(list(ShardSource([f"pipe:cat {shard}"]).read([0], pytest.fail))) == 3


@pytest.mark.skipif(which("curl") is None, reason="webdataset reads http by curl, which is not here")
def test_shards_over_http(tmp_path):
    write_shards(tmp_path, 12, per_shard=3)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        train = f"http://127.0.0.1:{server.server_address[1]}/{{00000..00004}}.tar"
        loader = load(train, log=tmp_path / "skipped.jsonl")
        assert set(take(loader, 9)) == set(range(12))
        assert loader.skipped.counts == {"broken_shard": 1}
        server.shutdown()
    (line,) = map(json.loads, (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert line["reason"] == "curl could not read it and ended with exit code 22", "no options, no tokens"


def test_s3_goes_through_its_own_client(monkeypatch):
    assert opener("s3://bucket/a b.tar") == "pipe:aws s3 cp 's3://bucket/a b.tar' -"
    assert opener("gs://bucket/a.tar") == "gs://bucket/a.tar"
    monkeypatch.setenv("GOPEN_REWRITE", "s3://=pipe:cat /mnt/")
    assert opener("s3://bucket/a.tar") == "s3://bucket/a.tar"


@pytest.mark.parametrize(
    ("train", "program"), [("s3://b/{0..1}.tar", "aws"), ("gs://b/0.tar", "gsutil"), ("https://b/0.tar", "curl")]
)
def test_a_missing_program_is_told_before_anything_is_read(monkeypatch, train, program):
    monkeypatch.setattr(remote, "which", lambda name: None)
    with pytest.raises(UserError, match=rf"is read by the program {program}, which is not installed here; install it"):
        load(train)
    check_remote("pipe:cat 0.tar")
    monkeypatch.setenv("GOPEN_REWRITE", f"{train[:5]}=pipe:cat ")
    check_remote(train)


@pytest.mark.parametrize(
    ("train", "words"),
    [("gopher://host/0.tar", "cannot be opened, webdataset knows s3://, http://, https://"),
     ("https://host/*.tar", "remote shards cannot be listed"), ("s3://bucket/*.tar", "remote shards cannot be listed")],
)  # fmt: skip
def test_what_cannot_be_opened_is_refused_at_once(train, words):
    with pytest.raises(UserError, match=words):
        load(train)
