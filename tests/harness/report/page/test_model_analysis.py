"""What the models tell: retrieval examples, similarity, classes, the teacher's accuracy; on sets made for it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.config import EvalSet, Recipe
from harness.errors import UserError
from harness.evaluate import evaluate
from harness.export import export_model
from harness.models import create_model, load_model
from harness.report.page.analysis.image_captions import read_image_captions
from harness.report.page.examples import _kinds, _spread
from harness.report.page.thumbnails import SIDE, encode_thumbnail, shrink
from harness.similarity import read_pairs
from tests.harness import tiny
from tests.harness.evaluate.eval_sets import write_set
from tests.harness.report.page.make_report import Made, make
from tests.harness.report.page.run_folders import SETS, recipe, write_run

pytestmark = pytest.mark.usefixtures("without_drawing")

COUNT = 24
EVIL = '<script>alert("caption")</script> & <b>0</b>'


def picture(number: int) -> bytes:
    """A PNG that differs from the others'."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (200, 160, 3), generator=generator, dtype=torch.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(out, "png")
    return out.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrieval set with two captions an image, a zero-shot set, and a teacher."""
    root = tmp_path_factory.mktemp("models")
    texts = [f"{EVIL if i == 0 else f'thing number {i}'}\nanother view of {i}" for i in range(COUNT)]
    write_set(root / "pairs", [{"png": picture(i), "txt": text.encode()} for i, text in enumerate(texts)], "retrieval")
    write_set(root / "kinds", [{"png": picture(i), "cls": str(i % 6).encode()} for i in range(COUNT)], "zeroshot")
    (root / "kinds" / "classnames.txt").write_text("".join(f"class {name}\n" for name in "abcdef"))
    (root / "kinds" / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    torch.manual_seed(5)
    export_model(create_model(recipe(**tiny.DISTILL).teacher), root / "teacher" / "export")
    return root


def distilled(root: Path, **sections: object) -> Recipe:
    """A run's recipe on these sets, taught by the teacher there."""
    sets = [
        {"name": "kinds", "kind": "zeroshot", "path": str(root / "kinds")},
        {"name": "pairs", "kind": "retrieval", "path": str(root / "pairs")},
    ]
    taught = {"teacher": {"model": f"run:{root / 'teacher'}"}, "loss": tiny.DISTILL["loss"]}
    return recipe(**{**taught, "eval": {"sets": sets}, **sections})


@pytest.fixture(scope="module")
def made(root: Path) -> Made:
    """A distilled run and one without a teacher, of equal widths."""
    wide = {"model": "test-wide-student", "config": {**tiny.STUDENT, "embed_dim": tiny.TEACHER["embed_dim"]}}
    alone = distilled(root, student=wide, teacher=None, loss={"weights": {"contrastive": 1}})
    first = write_run(root / "plain", alone, export=True)
    second = write_run(root / "distilled", distilled(root, student=wide), export=True)
    return make(root / "out", first, second, load_models=True)


def test_nothing_is_missing(made: Made) -> None:
    assert made.page.missing == ""


def test_examples_have_pictures_with_descriptions_and_marks(made: Made) -> None:
    images = [attributes for tag, attributes in made.page.tags if tag == "img"]
    assert images and all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert made.html.count('<article class="example">') >= 6
    assert any(heading.startswith("Image to text: wrong") for heading in made.page.headings)
    assert any(heading.startswith("Text to image: wrong") for heading in made.page.headings)
    assert "all of its images" in made.html and f"of {COUNT}" in made.html


def test_the_count_of_right_answers_is_the_recall(made: Made, root: Path) -> None:
    item = EvalSet(name="pairs", kind="retrieval", path=str(root / "pairs"))
    recall = evaluate(load_model(f"run:{root / 'distilled'}"), [item])["pairs"]["i2t_r1"]
    told = next(text for _, text in made.page.notes if text.startswith("Image to text, right at rank 1"))
    assert f"distilled {round(recall * COUNT / 100)} of {COUNT}" in told


def test_captions_are_escaped(made: Made) -> None:
    assert "<script" not in made.html and "<b>0" not in made.html
    assert "&lt;script&gt;alert(&#34;caption&#34;)" in made.html
    assert "<script" not in made.markdown


def test_pictures_of_the_markdown_are_files(made: Made) -> None:
    files = {path.name for path in (made.folder / "report-figures").glob("*.webp")}
    assert files and all(f"(report-figures/{name})" in made.markdown for name in files)


def test_the_teacher_was_measured_on_the_runs_sets(made: Made, root: Path) -> None:
    item = EvalSet(name="kinds", kind="zeroshot", path=str(root / "kinds"))
    top1 = evaluate(load_model(f"run:{root / 'teacher'}"), [item])["kinds"]["top1"]
    header, *rows = made.page.table("Percent on held-out sets")
    assert header[1] == "teacher teacher"
    assert f"{top1:.1f}" in next(row for row in rows if row[0] == "kinds top-1")


def test_feature_similarity_shows_both_runs_and_marks_a_foreign_teacher(made: Made) -> None:
    header, *rows = made.page.table("Cosine: mean")
    assert header[1:] == ["plain (not its teacher)", "distilled"]
    told = {row[0]: row[1:] for row in rows}
    assert told["cosine computed"] == ["directly", "directly"]
    # The students are the same random model, so both are equally far from the teacher.
    assert told["cosine, images"][0] == told["cosine, images"][1]
    alts = [attributes["aria-label"] for _, attributes in made.page.tags if attributes.get("role") == "img"]
    assert sum("Histogram of the cosine" in str(alt) for alt in alts) == 2


def test_classes_are_counted(made: Made) -> None:
    header, *rows = made.page.table("The 3 best classes")
    assert header == ["class", "images", "teacher teacher", "plain", "distilled"]
    assert all(row[1] == "4" for row in rows)
    worst = made.page.table("The 3 worst classes")[1:]
    assert {row[0] for row in rows} | {row[0] for row in worst} == {f"class {name}" for name in "abcdef"}
    assert min(float(row[4]) for row in rows) >= max(float(row[4]) for row in worst)


def test_the_size_is_bounded(made: Made) -> None:
    assert len(made.html.encode()) < 1_000_000


def test_widths_that_differ_without_a_projection_are_said(root: Path) -> None:
    run = write_run(root / "narrow", distilled(root), export=True)
    page = make(root / "out-narrow", run, load_models=True, max_images=5).page
    assert "features of different widths have no cosine" in page.missing
    rows = {row[0]: row[1:] for row in page.table("Cosine: mean")}
    assert rows["cosine, images"] == ["\u2013"] and 0 <= float(rows["linear CKA, images"][0]) <= 1
    # The bound: five images are too few for the set of classes and for measuring the teacher.
    assert (
        "Set kinds has 24 images and 6 texts, more than a report analyzes; --max-images 24 includes them."
        in page.missing
    )
    assert "was not evaluated on pairs, which has 24 images" in page.missing


@pytest.mark.slow
def test_the_projection_of_the_loss_is_used_for_different_widths(root: Path) -> None:
    run = write_run(root / "projected", distilled(root), export=True)
    state = {
        f"{side}_proj.{part}": torch.randn(24, 16) if part == "weight" else torch.zeros(24)
        for side in ("visual", "text")
        for part in ("weight", "bias")
    }
    (run / "checkpoints").mkdir()
    torch.save({"loss": state}, run / "checkpoints" / "step-0000040.pt")
    rows = {row[0]: row[1:] for row in make(root / "out-projected", run, load_models=True).page.table("Cosine: mean")}
    assert rows["cosine computed"] == ["after the loss's projection"]


def test_a_random_teacher_is_not_compared_with(root: Path) -> None:
    run = write_run(root / "random", distilled(root, teacher=tiny.DISTILL["teacher"]), export=True)
    page = make(root / "out-random", run, load_models=True).page
    assert "has random weights" in page.missing and "No histogram" in page.missing
    assert any(heading.startswith("Image to text") for heading in page.headings)


@pytest.mark.slow
def test_the_teacher_is_measured_on_every_synthetic_set(root: Path) -> None:
    run = write_run(root / "synthetic", distilled(root, eval={"sets": SETS}), export=True)
    header, *rows = make(root / "out-synthetic", run, load_models=True).page.table("Percent on held-out sets")
    told = {row[0]: row[1] for row in rows}
    assert header[1] == "teacher teacher"
    assert all(
        told[f"{name} {metric}"] != "\u2013" for name, metric in (("zeroshot", "top-1"), ("retrieval", "i2t R@1"))
    )


def test_kinds_of_queries_and_an_even_choice() -> None:
    right = [[True, True, False, False], [True, False, True, False]]
    assert _kinds(right) == {"right for every student": [0], "wrong for every student": [3], "students differ": [1, 2]}
    assert _kinds(right[:1]) == {"right": [0, 1], "wrong": [2, 3]}
    assert _spread(range(100), 3) == [16, 50, 83] and _spread([4, 9], 3) == [4, 9]


def test_thumbnails_are_small_and_white_behind_transparency() -> None:
    image = Image.new("RGBA", (400, 100), (0, 0, 0, 0))
    small = shrink(image)
    assert small.size == (SIDE, SIDE // 4) and small.mode == "RGB" and small.getpixel((0, 0)) == (255, 255, 255)
    made = encode_thumbnail(small, "nothing")
    assert len(made.data) < 2_000 and made.file == encode_thumbnail(small, "else").file and json.dumps(made.uri)


@pytest.mark.parametrize(("formats", "read"), [(("png",), False), (("png", "gif"), True)])
def test_pictures_are_of_the_formats_of_the_set(tmp_path, formats, read):
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "gif")
    item = write_set(tmp_path / "pairs", [{"png": gif.getvalue(), "txt": b"one"}], "retrieval")
    item = item.model_copy(update={"image_formats": formats})
    if read:
        assert len(read_image_captions(item, 1).images) == len(read_pairs(item)[0]) == 1
        return
    with pytest.raises(UserError, match="cannot be decoded: the file's content is GIF"):
        read_image_captions(item, 1)
    with pytest.raises(UserError, match=r"cannot be read \(the file's content is GIF"):
        read_pairs(item)
