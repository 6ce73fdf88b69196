"""A cache opened for training: each epoch finds its view, in workers too; what does not fit is refused by name."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

from harness.config import ModelConfig, Recipe
from harness.data.samples import RawSample
from harness.errors import UserError
from harness.export import export_model
from harness.models import create_model
from harness.teachers import store
from harness.teachers.build import build_cache
from harness.teachers.cached import CachedTeacher, CachedView
from harness.teachers.identity import identify
from harness.teachers.lookup import TeacherCache
from harness.teachers.opening import open_cache
from tests.harness import tiny
from tests.harness.data.pairs import write_tar
from tests.harness.teachers.teacher_caches import KINDS, data, noise, raws, recipe, shard
from tests.harness.weights.damage import flip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Recipe, Path]:
    """A cache of two views over seven pairs in three shards."""
    root = tmp_path_factory.mktemp("made")
    wanted = recipe(data("shards", root), root, teacher_cache={"views": 2})
    build_cache(wanted)
    return wanted, root


def same(one: CachedView, other: CachedView) -> bool:
    features = zip(one.features, other.features, strict=True)
    return one.box == other.box and all(a.equal(b) for pair in features for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_passes_show_the_views_in_turn(kind, tmp_path):
    wanted = recipe(data(kind, tmp_path), tmp_path, teacher_cache={"views": 3})
    build_cache(wanted, part_size=3)
    cache = open_cache(wanted)
    boxes = [[cache.lookup(raw, epoch).box for epoch in range(6)] for raw in raws(wanted)]
    assert len(boxes) == 7
    for one in boxes:
        assert len(set(one[:3])) == 3
        assert one[3:] == one[:3]


def test_not_all_samples_begin_with_the_first_view(made):
    cache = open_cache(made[0])
    first = [cache.view(entry, 0).box == tuple(store_rows(cache, entry)["boxes"][0].tolist())
             for entry in map(cache.find, raws(made[0]))]  # fmt: skip
    assert len(set(first)) == 2


def store_rows(cache: TeacherCache, entry: tuple) -> dict[str, torch.Tensor]:
    tensors, row = cache._stores[0].rows(entry[0])
    return {name: tensors[name][row] for name in ("boxes", "maps")}


def test_two_rows_with_one_image_are_two_samples(tmp_path):
    wanted = recipe(data("csv", tmp_path), tmp_path)
    build_cache(wanted)
    cache = open_cache(wanted)
    twins = [cache.lookup(raw, 0).features[0] for raw in raws(wanted) if raw.key == "0.png"]
    assert len(twins) == 2
    assert not twins[0][1].equal(twins[1][1])


def test_without_random_views_there_are_no_parameters(tmp_path):
    wanted = recipe(data("csv", tmp_path), tmp_path, data={"crop": "resize", "augment": None})
    build_cache(wanted)
    cache = open_cache(wanted)
    views = [cache.lookup(raw, 5) for raw in raws(wanted)]
    assert {(view.box, view.map) for view in views} == {(None, None)}
    assert CachedTeacher.stack(views).maps is None


class Lookups(Dataset):
    """What a worker looks up."""

    def __init__(self, cache: TeacherCache, samples: list[RawSample]) -> None:
        self.cache, self.samples = cache, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> CachedView:
        return self.cache.lookup(self.samples[index], 1)


def test_workers_find_the_same(made):
    cache, samples = open_cache(made[0]), list(raws(made[0]))
    here = [cache.lookup(raw, 1) for raw in samples]
    loader = DataLoader(Lookups(cache, samples), batch_size=None, num_workers=2)
    assert all(map(same, here, loader))


def test_threads_and_a_small_limit_of_open_files_change_nothing(made, monkeypatch):
    monkeypatch.setattr(store, "_OPEN", 1)
    cache, samples = open_cache(made[0]), list(raws(made[0])) * 20
    here = [open_cache(made[0]).lookup(raw, 0) for raw in samples[:7]] * 20
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, here, pool.map(lambda raw: cache.lookup(raw, 0), samples)))


def test_a_pickled_cache_is_small(made):
    cache = open_cache(made[0])
    before = len(pickle.dumps(cache))
    entries = list(map(cache.find, raws(made[0])))
    assert len(pickle.dumps(cache)) == before < 3000
    again = pickle.loads(pickle.dumps(cache))
    assert all(same(cache.view(entry, 0), again.view(entry, 0)) for entry in entries)


def test_batches_are_stacked_and_cut(made):
    cache = open_cache(made[0])
    views = [cache.lookup(raw, 0) for raw in raws(made[0])]
    whole = CachedTeacher.stack(views)
    assert (whole.features[0][0].shape, whole.features[0][1].shape, whole.maps.shape) == ((7, 24), (7, 24), (7, 2, 3))
    part, rest = whole.part(slice(2, 5)), CachedTeacher.stack(views[2:5])
    assert part.maps.equal(rest.maps)
    assert all(a.equal(b) for a, b in zip(part.features[0], rest.features[0], strict=True))


def test_a_skipped_sample_is_none_and_a_missing_one_an_error(tmp_path):
    members = [(f"k{n}", {"png": noise(n), "txt": b"a caption"}) for n in range(9)]
    write_tar(tmp_path / "shards" / "0.tar", [*members, ("broken", {"png": noise(3)[:-400], "txt": b"a caption"})])
    wanted = recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": 0.2})
    build_cache(wanted)
    cache, samples = open_cache(wanted), list(raws(wanted))
    assert [cache.lookup(raw, 0) is None for raw in samples] == [False] * 9 + [True]
    with pytest.raises(
        UserError, match=r"sample new of .*0.tar is not in the teacher cache .* run `clipkd teacher precompute`"
    ):
        cache.lookup(replace(samples[0], key="new"), 0)
    with pytest.raises(UserError, match=r"other.tar has no teacher cache"):
        cache.lookup(replace(samples[0], shard="other.tar"), 0)


def test_a_sample_that_has_changed_is_refused(made):
    cache = open_cache(made[0])
    raw = next(iter(raws(made[0])))
    with pytest.raises(UserError, match=r"the caption of sample k000 in .*00000.tar is not what the teacher saw"):
        cache.lookup(replace(raw, caption=b"another"), 0)
    with pytest.raises(UserError, match=r"the image of sample k000 in .*00000.tar is not what the teacher saw"):
        cache.lookup(replace(raw, image=noise(99)), 0)


PREPROCESSING = {
    "data.crop_scale": {"data": {"crop_scale": (0.5, 0.9)}},
    "data.crop": {"data": {"crop": "resize"}},
    "data.augment": {"data": {"augment": {"rotate": 0.3, "shift": 0.1}}},
    "data.image_size": {"data": {"image_size": 40}},
    "teacher_cache.views": {"teacher_cache": {"views": 5}},
    "train.precision": {"train": {"precision": "bf16"}},
    "teacher weights": {"seed": 3},
    "teacher architecture": {"teacher": {"model": "test-tiny-teacher-b", "config": {**tiny.TEACHER, "embed_dim": 8}}},
}


@pytest.mark.parametrize("named", PREPROCESSING)
def test_a_cache_of_another_teacher_or_preprocessing_is_refused_by_name(made, named):
    changed = recipe(made[0].data.train[0], made[1], **{"teacher_cache": {"views": 2}, **PREPROCESSING[named]})
    with pytest.raises(
        UserError, match=rf"no teacher cache in .* the nearest, .*, differs in .*{named} \(.* in the cache"
    ):
        open_cache(changed)


def test_the_seed_of_the_run_and_the_workers_do_not_matter_to_a_teacher_with_weights(tmp_path):
    loaded = create_model(ModelConfig.model_validate(tiny.DISTILL["teacher"]))
    export_model(loaded, tmp_path / "teacher")
    teacher = {"model": f"local-dir:{tmp_path / 'teacher'}"}
    train = data("shards", tmp_path)
    build_cache(recipe(train, tmp_path, teacher=teacher))
    open_cache(recipe(train, tmp_path, teacher=teacher, seed=5, data={"workers": 2, "cache": "memory"}))
    (tmp_path / "teacher").rename(tmp_path / "renamed")
    teacher = {"model": f"local-dir:{tmp_path / 'renamed'}"}
    open_cache(recipe(train, tmp_path, teacher=teacher))
    torch.manual_seed(99)
    export_model(create_model(ModelConfig.model_validate(tiny.DISTILL["teacher"])), tmp_path / "renamed")
    with pytest.raises(UserError, match=r"differs in teacher weights \(sha256 [0-9a-f]+ in the cache"):
        open_cache(recipe(train, tmp_path, teacher=teacher))


@pytest.mark.parametrize("spec", ["inline", "shipped"])
def test_a_teacher_is_identified_without_its_weights_as_it_is_with_them(spec):
    """What the cache is made with is the loaded model, what training compares is the recipe's section."""
    config = ModelConfig.model_validate(
        tiny.DISTILL["teacher"] if spec == "inline" else {"model": "shipped:openmoji-teacher"}
    )
    found, loaded = identify(config), create_model(config)
    assert (found.image_size, found.mean, found.std) == (loaded.image_size, loaded.mean, loaded.std)
    assert (found.name, found.config["embed_dim"]) == (loaded.name, loaded.embed_dim)
    assert found.weights.startswith("random" if spec == "inline" else "sha256 ")


def test_changed_data_are_refused_by_name(tmp_path):
    for kind in ("shards", "csv"):
        wanted = recipe(data(kind, tmp_path), tmp_path)
        build_cache(wanted)
        open_cache(wanted)
        data(kind, tmp_path, count=8)
        what = {
            "shards": r"00002.tar has changed since .*ends \(",
            "csv": r"pairs.csv has changed since .*: bytes \(",
        }
        with pytest.raises(UserError, match=what[kind]):
            open_cache(wanted)
    teacher = {"model": "shipped:openmoji-teacher"}  # a random one would depend on the seed as well
    build_cache(recipe("synthetic:3", tmp_path, teacher=teacher, data={"image_size": 32}))
    with pytest.raises(UserError, match=r"synthetic has changed since .*: seed \(0 in the cache, 1 now\)"):
        open_cache(recipe("synthetic:3", tmp_path, teacher=teacher, seed=1, data={"image_size": 32}))


def test_a_cache_that_is_not_there_not_complete_or_damaged_is_refused(tmp_path):
    wanted = recipe(data("shards", tmp_path), tmp_path)
    with pytest.raises(
        UserError, match=r"there is no teacher cache of test-tiny-teacher in .*; run `clipkd teacher precompute`"
    ):
        open_cache(wanted)
    build_cache(wanted)
    shard(tmp_path / "shards" / "00003.tar", range(2))
    with pytest.raises(UserError, match=r"is not complete: 00003.tar.safetensors is missing"):
        open_cache(wanted)
    build_cache(wanted)
    (path,) = tmp_path.rglob("00003.tar.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"00003.tar.safetensors is not a readable part of a teacher cache"):
        open_cache(wanted)


def test_a_flipped_bit_is_refused_before_a_row_is_used_and_mended_by_precompute(tmp_path):
    wanted = recipe(data("shards", tmp_path), tmp_path)
    build_cache(wanted)
    path = sorted(tmp_path.rglob("*.safetensors"))[1]
    whole = copy.deepcopy([open_cache(wanted).lookup(raw, 0) for raw in raws(wanted)])  # they read the file
    flip(path, path.stat().st_size - 1)
    cache = open_cache(wanted)
    pairs = list(raws(wanted))
    assert same(cache.lookup(pairs[0], 0), whole[0])
    for _ in range(2):
        with pytest.raises(UserError, match=r"00001.tar.safetensors is not a readable part .*its record .* checksum"):
            cache.lookup(pairs[3], 0)
    assert build_cache(wanted).written == 1
    cache = open_cache(wanted)
    assert all(same(cache.lookup(raw, 0), view) for raw, view in zip(pairs, whole, strict=True))


def test_a_record_of_another_cache_is_refused(tmp_path):
    """The views of an image, for one, would be others."""
    wanted = recipe("synthetic:3", tmp_path)
    build_cache(wanted)
    meta = next(tmp_path.rglob("cache.json"))
    values = json.loads(meta.read_text())
    values["fingerprint"]["teacher_cache.views"] = 3
    meta.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is of another folder, as it differs in teacher_cache.views \(3 in the cache"):
        open_cache(wanted)


def test_a_flipped_bit_in_the_facts_of_a_part_is_refused(tmp_path):
    wanted = recipe(data("shards", tmp_path, 3), tmp_path)
    build_cache(wanted)
    (path,) = tmp_path.rglob("*.safetensors")
    flip(path, path.read_bytes().index(b"bad"), 0)
    with pytest.raises(UserError, match=r"is not a readable part .*its record of the metadata"):
        open_cache(wanted)


def test_a_cache_of_an_older_version_has_no_checksums_and_is_used(tmp_path):
    wanted = recipe(data("shards", tmp_path, 3), tmp_path)
    build_cache(wanted)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = copy.deepcopy([open_cache(wanted).lookup(raw, 0) for raw in raws(wanted)])  # they read the file
    with safe_open(path, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "crc32"}
    assert len(metadata) == 1
    save_file(load_file(path), tmp_path / "older", metadata=metadata)
    (tmp_path / "older").replace(path)
    cache = open_cache(wanted)
    assert all(same(cache.lookup(raw, 0), view) for raw, view in zip(raws(wanted), whole, strict=True))
    assert build_cache(wanted).written == 0
