"""The loader with a cache: it shows the cached views beside what the teacher said of them."""

from __future__ import annotations

import pytest

from harness.data import build_loader
from harness.data.decode import decode
from harness.data.view import View
from harness.errors import UserError
from harness.models import create_model
from harness.teachers.build import build_cache
from harness.teachers.opening import open_cache
from tests.harness.data.pairs import write_tar
from tests.harness.teachers.teacher_caches import data, noise, raws, recipe


def loader(wanted, **changes):
    student = create_model(wanted.student)
    cfg = wanted.data.model_copy(update=changes)
    return build_loader(
        cfg, batch_size=3, seed=0, image_size=48, tokenizers={"student": student.tokenizer}, skipped_samples=None,
        cache=open_cache(wanted),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("csv", "none"),
        ("shards", "none"),
        ("synthetic", "memory"),
        pytest.param("synthetic", "none", marks=pytest.mark.slow),
        pytest.param("csv", "memory", marks=pytest.mark.slow),
        pytest.param("shards", "memory", marks=pytest.mark.slow),
    ],
)
def test_batches_hold_the_cached_views_and_embeddings(kind, cache, tmp_path):
    wanted = recipe(data(kind, tmp_path, 6), tmp_path, teacher_cache={"views": 2})
    build_cache(wanted, part_size=3)
    opened = open_cache(wanted)
    known = {(raw.key, decode(raw)[1]): raw for raw in raws(wanted)}
    cut = View(48, wanted.data.crop, wanted.data.crop_scale).cut
    batches = loader(wanted, cache=cache)
    for epoch in range(3):
        shown = [next(batches), next(batches)]
        assert sorted(key for batch in shown for key in batch.keys) == sorted(key for key, _ in known)
        for batch in shown:
            pairs = zip(batch.keys, batch.captions, strict=True)
            for row, raw in enumerate(known[pair] for pair in pairs):
                # Shards that are not cached may be an epoch ahead.
                views = [opened.lookup(raw, number) for number in (epoch, epoch + 1)]
                right = [view for view in views if view.map.equal(batch.cached.maps[row])]
                assert len(right) == 1 and (kind == "shards" or right[0] is views[0])
                assert batch.images[row].equal(cut(decode(raw)[0], right[0].box))
                for side in range(2):
                    assert batch.cached.features[0][side][row].equal(right[0].features[0][side])
    batches.close()


@pytest.mark.parametrize("kind", ["shards", "csv"])
def test_workers_bring_the_same(kind, tmp_path):
    wanted = recipe(data(kind, tmp_path, 6), tmp_path)
    build_cache(wanted)
    seen = []
    for workers in (0, 2):
        batches = loader(wanted, workers=workers)
        found = [next(batches) for _ in range(4)]
        rows = [(key, *row.tolist()) for batch in found for key, row in
                zip(batch.keys, batch.cached.features[0][0], strict=True)]  # fmt: skip
        seen.append(sorted(rows) if kind == "shards" else rows)
        batches.close()
    assert seen[0] == seen[1]


def test_a_sample_skipped_while_caching_is_a_skipped_sample(tmp_path):
    broken = {"png": noise(3)[:-200], "txt": b"a caption"}
    members = [(f"k{n}", {"png": noise(n), "txt": b"a caption"}) for n in range(12)]
    write_tar(tmp_path / "shards" / "0.tar", [*members, ("k12", broken)])
    wanted = recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": 0.5})
    build_cache(wanted)
    batches = loader(wanted)
    for _ in range(8):
        assert "k12" not in next(batches).keys
    assert sum(batches.skipped.counts.values()) >= 1


@pytest.mark.parametrize(
    ("cache", "workers"),
    [
        ("none", 1),
        pytest.param("memory", 0, marks=pytest.mark.slow),
        pytest.param("none", 0, marks=pytest.mark.slow),
        pytest.param("memory", 1, marks=pytest.mark.slow),
    ],
)
def test_a_sample_that_has_changed_since_ends_the_run_with_one_sentence(cache, workers, tmp_path):
    root = tmp_path / "csv"
    wanted = recipe(data("csv", root), root)
    build_cache(wanted)
    for number in range(7):
        (root / f"{number}.png").write_bytes(noise(50 + number))
    with pytest.raises(
        UserError, match=r"^the image of sample \d.png in .*pairs.csv is not what the teacher saw"
    ) as told:
        next(loader(wanted, cache=cache, workers=workers))
    assert "\n" not in str(told.value)
