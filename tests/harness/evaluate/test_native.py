"""Data sets by clip_benchmark's name, in its own folders, without a download behind anybody's back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.config import EvalSet
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.evaluate.find_sets import find_dataset, find_suite
from harness.evaluate.native import DownloadRefusedError, no_downloads
from harness.evaluate.suites import load_suite, shipped_suites
from tests.harness.evaluate.eval_sets import png, table_model, write_retrieval, write_zeroshot

EMOTIONS = 7


def write_fer(folder: Path, classes: int = EMOTIONS) -> Path:
    """One image a class, whose code is its label."""
    for label in range(classes):
        (folder / "test" / f"{label}").mkdir(parents=True)
        (folder / "test" / f"{label}" / "a.png").write_bytes(png(label))
    return folder


def knowing():
    """A model that finds class n in the image of code n; texts get the classes in the order they are asked."""
    loaded = table_model(torch.eye(EMOTIONS), torch.eye(EMOTIONS))
    asked: dict[str, int] = {}

    def tokenizer(texts: list[str]) -> torch.Tensor:
        label = asked.setdefault(texts[0], len(asked))
        return torch.full((len(texts), 1), label)

    return type(loaded)(**{**vars(loaded), "tokenizer": tokenizer})


def test_a_native_folder_is_found_and_measured(tmp_path):
    write_fer(tmp_path / "fer2013")
    (item,) = find_dataset("fer2013", tmp_path).sets
    assert (item.name, item.kind, item.dataset) == ("fer2013", "zeroshot", "fer2013")
    assert evaluate(knowing(), [item])["fer2013"] == {"top1": 100, "top5": 100, "mean_recall": 100}


def test_shards_come_before_native_folders_and_say_their_kind(tmp_path):
    write_fer(tmp_path / "fer2013")
    write_zeroshot(tmp_path / "wds_fer2013", [0], ["0"])
    write_retrieval(tmp_path / "wds_vtab-anything", [["0"]])
    (item,) = find_dataset("fer2013", tmp_path).sets
    assert item.dataset is None and item.path.endswith("wds_fer2013") and item.name == "fer2013"
    (item,) = find_dataset("wds/vtab/anything", tmp_path).sets
    assert (item.name, item.kind) == ("vtab-anything", "retrieval")


def test_a_class_folder_less_is_not_measured_with_shifted_names(tmp_path):
    folder = write_fer(tmp_path / "fer2013", classes=6)
    item = EvalSet(name="fer", kind="zeroshot", path=str(folder), dataset="fer2013")
    with pytest.raises(
        UserError, match=r"fer \(clip_benchmark's fer2013\) in .*6 class folders, but there are 7 class"
    ):
        evaluate(knowing(), [item])


def test_a_root_without_the_set_is_missing_not_downloaded(tmp_path):
    found = find_dataset("cifar10", tmp_path)
    assert not found.sets and list(tmp_path.iterdir()) == []
    assert str(found.missing[0]).startswith(f"cifar10 is missing: looked for {tmp_path}/wds_cifar10/test/nshards.txt")


def test_an_incomplete_folder_says_what_would_have_been_fetched(tmp_path):
    (tmp_path / "flickr30k").mkdir()
    item = EvalSet(name="flickr", kind="retrieval", path=str(tmp_path / "flickr30k"), dataset="flickr30k")
    with pytest.raises(UserError, match="a file is missing that the builder would download with wget"):
        evaluate(knowing(), [item])


def test_a_broken_image_names_the_set(tmp_path):
    folder = write_fer(tmp_path / "fer2013")
    (folder / "test" / "3" / "a.png").write_bytes(b"no image")
    item = EvalSet(name="fer", kind="zeroshot", path=str(folder), dataset="fer2013")
    with pytest.raises(UserError, match=r"evaluation set fer .*a sample cannot be read \(.*3/a.png: not an image"):
        evaluate(knowing(), [item])


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_a_native_set_are_told_by_their_content(tmp_path, workers):
    folder = write_fer(tmp_path / "fer2013")
    item = EvalSet(name="fer", kind="zeroshot", path=str(folder), dataset="fer2013")
    # GTSRB is published as PPM.
    for label, kind in enumerate(["ppm", "jpeg", "webp"]):
        (folder / "test" / f"{label}" / "a.png").write_bytes(png(label, kind))
    assert evaluate(knowing(), [item], workers=workers)["fer"]["top1"] == 100
    (folder / "test" / "3" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(
        UserError, match=r"fer2013\) in .*3/a.png: the file's content is PostScript, and only JPEG, PNG, WebP or PPM"
    ):
        evaluate(knowing(), [item], workers=workers)


def test_programs_and_the_network_are_out_of_reach_in_the_builder():
    import os
    import socket
    import subprocess

    with no_downloads():
        for reach in (
            lambda: subprocess.call("true", shell=True),
            lambda: os.system("true"),
            lambda: socket.create_connection(("localhost", 1)),
        ):
            with pytest.raises(DownloadRefusedError, match="a file is missing"):
                reach()
    assert subprocess.call("true", shell=True) == 0


def test_each_set_of_a_shipped_suite_is_known_and_says_where_to_get_it():
    from clip_benchmark.datasets.builder import get_dataset_default_task

    from harness.evaluate.native import check_dataset_known
    from harness.evaluate.results import TASKS

    assert shipped_suites() == ["paper", "quick"]
    entries = load_suite("paper").sets
    assert [entry.name for entry in entries if entry.kind == "zeroshot"] == [
        "imagenet1k", "imagenetv2", "imagenet-r", "imagenet-a", "imagenet_sketch"
    ]  # fmt: skip
    assert [entry.name for entry in entries if entry.kind == "retrieval"] == [
        "cc3m_val", "mscoco_captions", "flickr30k"
    ]  # fmt: skip
    assert {entry.name for entry in load_suite("quick").sets} < {entry.name for entry in entries}
    for entry in entries:
        assert entry.source and entry.path == (f"wds_{entry.name}",)
        for native in entry.native:
            check_dataset_known(native.dataset)
            assert TASKS[entry.kind] == get_dataset_default_task(native.dataset)


def test_the_native_layout_of_imagenet_is_read_with_its_thousand_names(tmp_path):
    for number in range(1000):
        folder = tmp_path / "imagenet1k" / "val" / f"n{number:08d}"
        folder.mkdir(parents=True)
        if number < 4:
            (folder / "a.png").write_bytes(png(number))
    # ImageFolder refuses empty classes, so all but four share one picture.
    shared = tmp_path / "shared.png"
    shared.write_bytes(png(4))
    for number in range(4, 1000):
        (tmp_path / "imagenet1k" / "val" / f"n{number:08d}" / "a.png").symlink_to(shared)
    found = find_suite(load_suite("paper").sets, tmp_path)
    (item,) = found.sets
    assert (item.name, item.dataset) == ("imagenet1k", "imagenet1k-unverified")
    loaded = table_model(torch.nn.functional.one_hot(torch.arange(5), 1000).float(), torch.eye(1000))
    asked: dict[str, int] = {}

    def tokenizer(texts: list[str]) -> torch.Tensor:
        label = asked.setdefault(texts[0], len(asked))
        return torch.full((len(texts), 1), label)

    loaded = type(loaded)(**{**vars(loaded), "tokenizer": tokenizer})
    # The shared picture is of class 4, one of the 996 that it stands for.
    assert evaluate(loaded, [item])["imagenet1k"]["top1"] == pytest.approx(0.5)
    assert next(iter(asked)) == "a bad photo of a tench." and len(asked) == 998  # two names stand for two classes each
