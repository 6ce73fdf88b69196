"""`clipkd teacher precompute`: what it writes, for every kind of data, and what happens when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from harness.config import dump_recipe
from harness.data.decode import decode
from harness.data.view import View
from harness.errors import UserError
from harness.models import create_model
from harness.teachers.build import build_cache
from harness.teachers.replay import apply_maps
from harness.teachers.samples import sample_id
from tests.harness import tiny
from tests.harness.data.pairs import picture, write_tar
from tests.harness.teachers.teacher_caches import KINDS, data, noise, parts, raws, recipe, shard


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_has_its_views_parameters_tokens_and_embeddings(kind, tmp_path):
    wanted = recipe(data(kind, tmp_path), tmp_path, teacher_cache={"views": 2})
    report = build_cache(wanted, batch_size=4, part_size=3)
    assert (report.samples, report.written, report.kept, report.views) == (7, 3, 0, 2)
    found = [tensors(path) for path in sorted(tmp_path.rglob("*.safetensors"))]
    ids = torch.cat([part["ids"] for part in found])
    assert sorted(ids.tolist()) == sorted(sample_id(raw) for raw in raws(wanted))
    for part in found:
        n = len(part["ids"])
        assert part["ids"].tolist() == sorted(part["ids"].tolist())
        assert (part["image_features"].shape, part["image_features"].dtype) == ((n, 2, 24), torch.float16)
        assert (part["text_features"].shape, part["text_features"].dtype) == ((n, 24), torch.float16)
        assert (part["boxes"].shape, part["maps"].shape) == ((n, 2, 4), (n, 2, 2, 3))
        assert part["tokens"].shape == (n, 16)
        assert not part["boxes"][:, 0].equal(part["boxes"][:, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_are_the_teachers_of_these_views_and_captions(kind, tmp_path):
    """Made anew, sample by sample, from the parameters in the file; float16 rounds by half a unit in the last place."""
    wanted = recipe(data(kind, tmp_path), tmp_path, teacher_cache={"views": 2})
    build_cache(wanted, batch_size=5)
    torch.manual_seed(wanted.seed)
    create_model(wanted.student)
    teacher = create_model(wanted.teacher)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (teacher.mean, teacher.std))
    rows = {int(i): {k: v[r] for k, v in part.items() if k != "bad_ids"} for part in map(
        tensors, tmp_path.rglob("*.safetensors")) for r, i in enumerate(part["ids"])}  # fmt: skip
    for raw in raws(wanted):
        row = rows[sample_id(raw)]
        image, caption = decode(raw)
        tokens = teacher.tokenizer([caption])
        assert row["tokens"].equal(tokens[0].int())
        view = View(48, "random_resized", (0.4, 0.9))
        for number in range(2):
            pixels = apply_maps(view.cut(image, tuple(row["boxes"][number].tolist()))[None], row["maps"][None, number])
            with torch.no_grad():
                live = teacher.model.eval()((pixels - mean) / std, tokens)
            for name, cached in (("image", row["image_features"][number]), ("text", row["text_features"])):
                exact = live[f"{name}_features"][0]
                assert ((cached.float() - exact).abs() <= exact.abs() * 2**-11 + 2**-25 + 1e-6).all()


def test_views_that_are_not_random_have_no_parameters(tmp_path):
    wanted = recipe(data("csv", tmp_path), tmp_path, data={"crop": "resize", "augment": None})
    assert build_cache(wanted).views == 1
    (part,) = map(tensors, tmp_path.rglob("*.safetensors"))
    assert not {"boxes", "maps"} & set(part)
    with pytest.raises(UserError, match=r"teacher_cache.views is 2, .* all views of an image are the same"):
        build_cache(recipe(wanted.data.train[0], tmp_path, data={"crop": "resize", "augment": None},
                           teacher_cache={"views": 2}))  # fmt: skip


def test_workers_batch_size_and_shares_change_nothing(tmp_path):
    train = data("shards", tmp_path)
    one = recipe(train, tmp_path, teacher_cache={"path": str(tmp_path / "one")})
    two = recipe(train, tmp_path, teacher_cache={"path": str(tmp_path / "two")}, data={"workers": 2})
    build_cache(one)
    first, second = (build_cache(two, shard=shard) for shard in ("1/2", "2/2"))
    assert (first.written, second.written, build_cache(two).kept) == (2, 1, 3)
    assert parts(tmp_path / "one") == parts(tmp_path / "two")
    assert {path.name for path in (tmp_path / "one").rglob("*.tar.safetensors")} == {
        f"shards.{number:05d}.tar.safetensors" for number in range(3)
    }
    with pytest.raises(UserError, match="--shard 3/2 must be I/N"):
        build_cache(two, shard="3/2")


def test_a_second_run_makes_only_what_is_missing_damaged_or_changed(tmp_path):
    wanted = recipe(data("shards", tmp_path, 9), tmp_path)
    build_cache(wanted)
    missing, damaged, changed = sorted(tmp_path.rglob("*.safetensors"))
    before = parts(tmp_path)
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:100])
    shard(tmp_path / "shards" / "00002.tar", range(6, 8))
    report = build_cache(wanted)
    assert (report.written, report.kept) == (3, 0)
    after = parts(tmp_path)
    assert {name for name in before if before[name] != after[name]} == {changed.name}
    assert build_cache(wanted).written == 0


@pytest.mark.slow  # a second run that makes what is missing is fast
def test_killed_and_run_again_it_ends_with_the_same_files(tmp_path):
    count = 40
    for number in range(count):
        shard(tmp_path / "data" / "shards" / f"{number:05d}.tar", range(number, number + 1))
    wanted = recipe(str(tmp_path / "data" / "shards"), tmp_path, teacher_cache={"views": 8})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(wanted))
    command = [sys.executable, "-m", "harness", "teacher", "precompute", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(parts(tmp_path)) < 5 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = len(parts(tmp_path))
    assert 5 <= left < count
    folder = next(tmp_path.rglob("cache.json")).parent
    (folder / f"{count - 1:05d}.tar.safetensors.123.tmp").write_bytes(b"half a file")
    report = build_cache(wanted)
    assert (report.kept, report.written) == (left, count - left)
    assert not list(tmp_path.rglob("*.tmp"))
    undisturbed = wanted.model_copy(update={"teacher_cache": wanted.teacher_cache.model_copy(
        update={"path": str(tmp_path / "undisturbed")})})  # fmt: skip
    build_cache(undisturbed)
    whole = {name.removeprefix("shards."): content for name, content in parts(tmp_path / "undisturbed").items()}
    assert parts(tmp_path / "data") == whole


@pytest.mark.parametrize(("formats", "skipped"), [(("png",), {"image_format": 1}), (("png", "gif"), {})])
def test_images_are_of_the_recipes_formats(tmp_path, formats, skipped):
    samples = [(f"k{n}", {"png": picture(n, kind=kind), "txt": b"x"}) for n, kind in enumerate(["png", "png", "gif"])]
    wanted = recipe(
        str(write_tar(tmp_path / "0.tar", samples)), tmp_path, data={"image_formats": formats, "max_skip_rate": 0.5}
    )
    assert build_cache(wanted, batch_size=4).skipped == skipped


def test_bad_samples_are_skipped_counted_and_listed(tmp_path):
    members = [(f"k{n}", {"png": noise(n), "txt": b"a caption"}) for n in range(30)]
    members[3] = ("broken", {"png": noise(3)[:-400], "txt": b"a caption"})
    members[7] = ("silent", {"png": noise(7), "txt": b" "})
    write_tar(tmp_path / "shards" / "0.tar", members)
    wanted = recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": 0.1})
    report = build_cache(wanted)
    assert (report.samples, report.skipped["empty_caption"], sum(report.skipped.values())) == (28, 1, 2)
    (listed,) = tmp_path.rglob("skipped_samples.jsonl")
    assert [json.loads(line)["key"] for line in listed.read_text().splitlines()] == ["broken", "silent"]
    assert report.lines()[1].startswith("skipped 1 ")
    with pytest.raises(UserError, match=r"data.max_skip_rate = 0.05"):
        build_cache(recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": 0.05}, seed=1))


@pytest.mark.parametrize(("rate", "allowed"), [(0.3, None), (0.2, "1 of 8 shards"), (0, "0 of 8 shards")])
def test_as_many_shards_may_break_off_as_in_training(tmp_path, rate, allowed):
    for number in range(8):
        path = shard(tmp_path / "shards" / f"{number}.tar", range(3 * number, 3 * number + 3))
        if number in (2, 5):
            path.write_bytes(path.read_bytes()[:-9000])
    wanted = recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": rate})
    if allowed is None:
        report = build_cache(wanted)
        assert (report.written, report.skipped) == (8, {"broken_shard": 2})
    else:
        with pytest.raises(UserError, match=rf"shards are broken, more than .* allows \({allowed}\)"):
            build_cache(wanted)


def test_a_part_without_a_usable_sample_is_still_a_part(tmp_path):
    shard(tmp_path / "shards" / "0.tar", range(3))
    write_tar(tmp_path / "shards" / "1.tar", [("k", {"png": noise(1), "txt": b""})])
    wanted = recipe(str(tmp_path / "shards"), tmp_path, data={"max_skip_rate": 0.9})
    assert (build_cache(wanted).written, build_cache(wanted).kept) == (2, 2)


def test_several_teachers_have_a_cache_each_of_the_same_views(tmp_path):
    small = {**tiny.TEACHER, "embed_dim": 8}
    wanted = recipe(data("csv", tmp_path), tmp_path, teacher=None, teachers=[
        {"model": "test-a", "config": tiny.TEACHER}, {"model": "test-b", "config": small}])  # fmt: skip
    report = build_cache(wanted)
    assert (report.samples, report.written, len(report.folders)) == (14, 2, 2)
    first, second = (tensors(next(folder.glob("*.safetensors"))) for folder in report.folders)
    assert first["boxes"].equal(second["boxes"]) and first["maps"].equal(second["maps"])
    assert (first["image_features"].shape[-1], second["image_features"].shape[-1]) == (24, 8)


def test_what_cannot_be_cached_is_said(tmp_path):
    plain = recipe(data("csv", tmp_path), tmp_path, teacher=None, loss={"weights": {"contrastive": 1}})
    with pytest.raises(UserError, match="has no teacher, so there is nothing to cache"):
        build_cache(plain)
    with pytest.raises(UserError, match=r"nothing can be written beside the remote shard .*teacher_cache.path"):
        build_cache(recipe("pipe:cat 00000.tar", tmp_path))
    for folder in ("a", "b"):
        shard(tmp_path / folder / "shards" / "0.tar", range(2))
    both = recipe([str(tmp_path / "a" / "shards"), str(tmp_path / "b" / "shards")], tmp_path,
                  teacher_cache={"path": str(tmp_path / "c")})  # fmt: skip
    with pytest.raises(UserError, match=r"cannot tell .*a/shards/0.tar and .*b/shards/0.tar apart"):
        build_cache(both)


def test_a_folder_begun_with_other_weights_of_the_same_name_is_refused(tmp_path):
    wanted = recipe(data("shards", tmp_path), tmp_path)
    build_cache(wanted)
    meta = next(tmp_path.rglob("cache.json"))
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "weights": "0" * 64}))
    next(tmp_path.rglob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"was begun with other weights of test-tiny-teacher \(0{12} there"):
        build_cache(wanted)


def test_the_command_says_what_it_made(tmp_path, monkeypatch, capsys):
    from harness.cli import main

    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe(data("csv", tmp_path), tmp_path)))
    monkeypatch.setattr(
        sys, "argv", ["clipkd", "teacher", "precompute", str(tmp_path / "recipe.yaml"), "--batch-size", "3"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    printed = capsys.readouterr().out
    assert "7 samples x 4 views" in printed
    assert "train from it with teacher_cache.use=true" in printed
