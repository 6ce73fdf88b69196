"""clipkd eval: which models, which sets, where results go, what is kept, and what is said of sets that are missing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.cli import main
from harness.config import EvalSet, dump_recipe
from harness.evaluate import cached
from harness.evaluate.fingerprint import data_digest
from harness.export import export_model
from harness.models import create_model
from tests.harness import tiny
from tests.harness.evaluate.eval_sets import png, write_retrieval, write_set, write_zeroshot
from tests.harness.evaluate.test_allowed_images import encoded

CLASSES = [str(number) for number in range(6)]


@pytest.fixture
def clipkd(monkeypatch, capsys, tmp_path):
    """Run the command in this process and in tmp_path; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipkd", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return run


def model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    export_model(create_model(tiny.recipe().student), folder)
    return folder


def run_folder(folder: Path, **sections) -> Path:
    """A finished run: recipe and export."""
    model(folder / "export")
    (folder / "recipe.yaml").write_text(dump_recipe(tiny.recipe(**sections)))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """A root with a zero-shot and a retrieval set under the names of the paper's suite."""
    write_zeroshot(tmp_path / "data" / "wds_imagenetv2", [n % 6 for n in range(24)], CLASSES)
    write_retrieval(tmp_path / "data" / "wds_flickr30k", [[f"{n} one", f"{n} two"] for n in range(20)])
    return tmp_path / "data"


def test_a_suite_on_several_models_measures_what_is_there(clipkd, data, tmp_path):
    first, second = model(tmp_path / "small"), model(tmp_path / "other", seed=1)
    code, out, err = clipkd("eval", first, second, "--suite", "paper", "--data", data, "--out", "results")
    assert code == 3
    files = sorted(path.name for path in (tmp_path / "results").glob("*.json"))
    assert files == [f"{name}_{label}.json" for name in ("flickr30k", "imagenetv2") for label in ("other", "small")]
    result = json.loads((tmp_path / "results" / files[0]).read_text())
    assert (result["dataset"], result["model"], result["task"]) == ("wds/flickr30k", "other", "zeroshot_retrieval")
    assert "6 of 8 sets are missing: imagenet1k, imagenet-r" in out.splitlines()[-1]
    assert (
        f"imagenet-r is missing: looked for {data}/wds_imagenet-r/test/nshards.txt, {data}/imagenet-r; get it: " in err
    )
    header = next(line for line in out.splitlines() if "metric" in line)
    assert "small" in header and "other" in header
    assert max(len(line) for line in out.splitlines() if "│" in line or "R@" in line) <= 80


def test_results_are_cached_until_weights_data_or_protocol_change(clipkd, data, tmp_path):
    small = model(tmp_path / "small")
    arguments = ("eval", small, "--suite", "quick", "--data", data)
    assert "cached" not in clipkd(*arguments)[1]
    path = tmp_path / "eval" / "flickr30k_small.json"
    before = path.stat().st_mtime_ns
    code, out, _ = clipkd(*arguments)
    assert code == 0 and out.count("cached, eval/") == 2 and path.stat().st_mtime_ns == before
    assert "cached" not in clipkd(*arguments, "--overwrite")[1] and path.stat().st_mtime_ns > before
    write_retrieval(data / "more", [[f"{n}"] for n in range(12)])
    (data / "more" / "test" / "0.tar").replace(data / "wds_flickr30k" / "test" / "0.tar")
    assert clipkd(*arguments)[1].count("cached") == 1
    model(small, seed=2)
    out = clipkd(*arguments)[1]
    assert "cached" not in out and out.count("has other weights, data or settings and is replaced") == 2
    out = clipkd(*arguments, "--protocol", "one-caption")[1]
    assert out.count("cached") == 1 and "flickr30k-one-caption: i2t_r1" in out
    assert (tmp_path / "eval" / "flickr30k-one-caption_small.json").is_file()


def test_killed_between_two_sets_it_goes_on(clipkd, data, tmp_path, monkeypatch):
    small = model(tmp_path / "small")
    measure = cached.iter_evaluate

    def stopped(*arguments, **options):
        yield next(measure(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(cached, "iter_evaluate", stopped)
    assert clipkd("eval", small, "--suite", "quick", "--data", data)[0] == 130
    monkeypatch.setattr(cached, "iter_evaluate", measure)
    out = clipkd("eval", small, "--suite", "quick", "--data", data)[1]
    assert "imagenetv2: cached" in out and "flickr30k: i2t_r1" in out


def test_a_run_brings_its_sets_and_its_teacher(clipkd, data, tmp_path):
    teacher = model(tmp_path / "big", seed=3)
    sets = [
        {"name": "held-out", "kind": "retrieval", "path": str(data / "wds_flickr30k")},
        {"name": "gone", "kind": "retrieval", "path": str(data / "gone")},
    ]
    distil = {"teacher": {"model": f"local-dir:{teacher}"}, "loss": {"weights": {"contrastive": 1, "crd": 1}}}
    run = run_folder(tmp_path / "runs" / "mine", eval={"sets": sets}, **distil)
    code, out, err = clipkd("eval", run, "--with-teacher", "--json")
    assert code == 3 and f"gone is missing: looked for {data / 'gone'}" in err
    found = json.loads(out)
    assert list(found["metrics"]) == ["big (teacher)", "mine"] and [m["name"] for m in found["missing"]] == ["gone"]
    assert found["metrics"]["mine"]["held-out"].keys() == {f"{w}_r{k}" for w in ("i2t", "t2i") for k in (1, 5, 10)}
    assert (run / "eval" / "held-out.json").is_file() and (run / "eval" / "teacher" / "held-out.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ViT-B-32",), "choose sets with --suite, --dataset or --dataset-path DIR"),
        (("x", "--suite", "paper"), "none of the 8 sets was found"),
        (("x", "--suite", "papper"), "suite papper is neither a shipped one (paper, quick) nor a file"),
        (("x", "--dataset", "cifra10"), "clip_benchmark does not know a dataset 'cifra10'"),
        (("x", "y", "--pretrained", "openai", "--suite", "quick"), "--pretrained is for one model"),
        (("x", "--with-teacher", "--suite", "quick"), "no MODEL is a run with a teacher"),
        (("ViT-B-32,openai", "--pretrained", "laion400m_e32", "--suite", "quick"), "give only one of the two"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(clipkd, arguments, says):
    code, out, err = clipkd("eval", *arguments)
    assert (code, out) == (2, "") and says in err.splitlines()[-1]


def test_a_suite_file_names_sets_of_its_own_and_shipped_ones(clipkd, data, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "sets:\n  - paper/imagenetv2\n  - {name: five, kind: retrieval, path: [nowhere, wds_flickr30k]}\n"
        "  - {name: first, kind: retrieval, path: wds_flickr30k, protocol: one-caption}\n"
    )
    code, out, _ = clipkd("eval", model(tmp_path / "small"), "--suite", "mine.yaml", "--data", data, "--json")
    assert code == 0
    found = json.loads(out)["metrics"]["small"]
    assert list(found) == ["imagenetv2", "five", "first"] and found["five"] != found["first"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sets: [paper/imagenet2]", "paper has no set 'imagenet2'; it has imagenet1k"),
        ("sets: [other/x]", "other/x is not a set of a shipped suite"),
        ("description: x\nsets: [{name: a, kind: retrieval}]", "sets[0] a needs path or native, the folders to look"),
        ("description: x\nsets:\n- {name: 3, kind: retrieval}", "sets[0].name input should be a valid string (line 3)"),
        (
            "sets: [{name: a, kind: retrieval, path: b, pth: c}]",
            "sets[0].pth is not a key of a suite; the keys of a set are name, kind, path",
        ),
        ("sets: [{name: a, kind: zeroshot, path: b, protocol: one-caption}]", "protocol one-caption"),
        ("sets: [paper/imagenetv2, paper/imagenetv2]", "two sets named imagenetv2"),
        ("sets: [", "not valid YAML"),
    ],
)
def test_a_broken_suite_gets_a_sentence(clipkd, tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    code, _, err = clipkd("eval", "x", "--suite", "mine.yaml")
    assert code == 2 and err.startswith("error: suite mine.yaml: ") and says in err


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (None, "no such folder"),
        ({}, "not in clip_benchmark's webdataset layout"),
        ({"dataset_type.txt": "captioning"}, "supported are classification, multilabel and retrieval"),
    ],
)
def test_dataset_path_refuses_a_folder_in_another_layout(clipkd, tmp_path, files, says):
    folder = tmp_path / "set"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    code, _, err = clipkd("eval", "ViT-B-32", "--dataset-path", folder)
    assert code == 2 and says in err


def test_dataset_path_takes_any_folder_in_the_layout(clipkd, data, tmp_path):
    paths = ("--dataset-path", data / "wds_flickr30k", "--dataset-path", data / "wds_imagenetv2")
    code, out, _ = clipkd("eval", model(tmp_path / "small"), *paths, "--json")
    assert code == 0 and list(json.loads(out)["metrics"]["small"]) == ["wds_flickr30k", "wds_imagenetv2"]


def test_two_models_of_one_name_are_told_apart(clipkd, data, tmp_path):
    first, second = model(tmp_path / "a" / "small"), model(tmp_path / "b" / "small", seed=1)
    out = clipkd("eval", first, second, "--suite", "quick", "--data", data, "--json")[1]
    found = json.loads(out)["metrics"]
    assert list(found) == [str(first), str(second)] and len(list((tmp_path / "eval").glob("*.json"))) == 4


def test_a_run_folder_may_be_called_run(clipkd, data, tmp_path):
    run_folder(tmp_path / "run")
    code, out, _ = clipkd("eval", "run", "--suite", "quick", "--data", data, "--json")
    assert code == 0 and list(json.loads(out)["metrics"]) == ["run"]


def test_teachers_of_one_name_are_all_measured(clipkd, data, tmp_path):
    for number in (1, 2):
        teacher = model(tmp_path / f"family-{number}" / "big", seed=number)
        distil = {"teacher": {"model": f"local-dir:{teacher}"}, "loss": {"weights": {"contrastive": 1, "crd": 1}}}
        run_folder(tmp_path / f"group-{number}" / "mine", **distil)
    runs = [tmp_path / f"group-{number}" / "mine" for number in (1, 2)]
    sets = ("--dataset-path", data / "wds_flickr30k", "--json")
    found = json.loads(clipkd("eval", *runs, "--with-teacher", *sets)[1])["metrics"]
    teachers = [f"local-dir:{tmp_path}/family-{number}/big (teacher)" for number in (1, 2)]
    assert list(found) == [*teachers, *map(str, runs)]
    # What lies in a run's folder does not depend on what else was measured.
    for run in runs:
        filed = [run / "eval" / folder / "wds_flickr30k.json" for folder in ("", "teacher")]
        assert [json.loads(path.read_text())["model"] for path in filed] == ["mine", "big (teacher)"]
    further = [f"--teacher={tmp_path / f'family-{number}' / 'big'}" for number in (1, 2)]
    assert len(json.loads(clipkd("eval", runs[0], *further, *sets)[1])["metrics"]) == 3


def test_a_run_that_serves_as_a_teacher_stays_a_student_in_its_own_folder(clipkd, data, tmp_path):
    small, big = run_folder(tmp_path / "small"), run_folder(tmp_path / "big")
    assert clipkd("eval", small, "--teacher", big, "--suite", "quick", "--data", data)[0] == 0
    assert json.loads((big / "eval" / "flickr30k.json").read_text())["model"] == "big"


def test_a_change_behind_a_link_is_a_change(tmp_path):
    real = tmp_path / "elsewhere" / "val" / "n01440764"
    real.mkdir(parents=True)
    (real / "a.JPEG").write_bytes(b"one")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "val").symlink_to(real.parent)
    (real / "round").symlink_to(real.parent)
    item = EvalSet(name="set", kind="zeroshot", path=str(tmp_path / "set"), dataset="imagenet1k-unverified")
    before = data_digest(item)
    assert data_digest(item) == before
    (real / "a.JPEG").write_bytes(b"another")
    assert data_digest(item) != before


def test_a_folder_of_any_name_can_be_measured(clipkd, data, tmp_path):
    (data / "wds_flickr30k").rename(data / "my pictures (new)")
    code, out, _ = clipkd("eval", model(tmp_path / "small"), "--dataset-path", data / "my pictures (new)", "--json")
    assert code == 0 and list(json.loads(out)["metrics"]["small"]) == ["my_pictures_new_"]


def test_where_nothing_can_be_written_nothing_is_measured(clipkd, data, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(cached, "iter_evaluate", None)
    code, _, err = clipkd("eval", model(tmp_path / "small"), "--suite", "quick", "--data", data, "--out", "taken/here")
    assert code == 2 and "taken is a file where a folder is needed" in err
    # Everything can be read and nothing written: typer asks whether the data can be read.
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    code, _, err = clipkd("eval", tmp_path / "small", "--suite", "quick", "--data", data, "--out", "locked")
    assert code == 2 and "no permission to read or write for locked" in err


def test_stock_decoding_is_an_option_with_results_of_its_own_and_a_key_of_a_suite(clipkd, tmp_path):
    small, folder = model(tmp_path / "small"), tmp_path / "data" / "icons"
    icons = [Image.new("RGBA", (8, 8), (20 * n, 255 - 20 * n, 0, 40 * n)) for n in range(5)]
    write_set(folder, [{"png": encoded(icon), "txt": b"%d" % n} for n, icon in enumerate(icons)], "retrieval")
    code, out, err = clipkd("eval", small, "--dataset-path", folder, "--out", "results")
    assert code == 0 and "icons: i2t_r1" in out
    assert (
        "WARNING: evaluation set icons: 5 images with transparency, 16 bits or a palette are seen as in training" in err
    )
    code, out, err = clipkd("eval", small, "--dataset-path", folder, "--out", "results", "--stock-decoding")
    assert code == 0 and "icons-stock: i2t_r1" in out and "seen as by stock clip_benchmark" in err
    assert sorted(path.name for path in Path("results").glob("*.json")) == [
        "icons-stock_small.json",
        "icons_small.json",
    ]
    (tmp_path / "suite.yaml").write_text("sets: [{name: icons, kind: retrieval, path: icons, stock_decoding: true}]")
    # The same name and data, decoded otherwise: the result is not reused.
    arguments = ("eval", small, "--suite", tmp_path / "suite.yaml", "--data", tmp_path / "data", "--out", "results")
    assert "icons_small.json has other weights, data or settings and is replaced" in clipkd(*arguments)[1]
    assert "icons: cached" in clipkd(*arguments, "--stock-decoding")[1]


def test_formats_of_images_are_an_option_and_a_key_of_a_suite(clipkd, tmp_path):
    small, folder = model(tmp_path / "small"), tmp_path / "data" / "gifs"
    write_set(folder, [{"png": png(n, "gif"), "txt": b"%d" % n} for n in range(3)], "retrieval")
    code, _, err = clipkd("eval", small, "--dataset-path", folder)
    assert code == 2 and "sample 0000 cannot be decoded: the file's content is GIF" in err
    assert clipkd("eval", small, "--dataset-path", folder, "--image-formats", "png, gif")[0] == 0
    code, _, err = clipkd("eval", small, "--dataset-path", folder, "--image-formats", "png,eps")
    assert code == 2 and "--image-formats has 'eps'; it takes jpeg, png, webp, gif, bmp, tiff" in err
    suite = "sets: [{name: again, kind: retrieval, path: gifs, image_formats: [gif]}]"
    (tmp_path / "suite.yaml").write_text(suite)
    assert clipkd("eval", small, "--suite", tmp_path / "suite.yaml", "--data", tmp_path / "data")[0] == 0
