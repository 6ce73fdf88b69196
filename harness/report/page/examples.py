"""Section of retrieval examples: queries with the top results of every model, both ways, some right and some wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from harness.report.page.analysis import ModelAnalysis
from harness.report.page.analysis.image_captions import ImageCaptions
from harness.report.page.blocks import Answer, Block, Example, Examples, Note, PageSection
from harness.report.page.formatting import listed
from harness.report.page.thumbnails import Thumbnail, encode_thumbnail

SHOWN = 5  # results per query
QUERIES = 3  # per kind
MOST_MODELS = 5
LONGEST = 160  # characters of a caption


def examples_section(found: ModelAnalysis | None) -> PageSection:
    """Section of retrieval examples."""
    title = "Retrieval examples"
    if found is None:
        why = Note("No examples: the models were not loaded (--no-models).", "missing")
        return PageSection("retrieval", title, [why])
    blocks: list[Block] = [
        Note(text, "missing") for part in ("models", "retrieval") for text in found.missing.get(part, [])
    ]
    looks = [look for look in (*found.students.values(), *found.teachers.values()) if look.features is not None]
    pairs = found.pairs
    if pairs is None or not looks:
        return PageSection(
            "retrieval", title, [*blocks, Note("No model and retrieval set are there together.", "missing")]
        )
    if len(looks) > MOST_MODELS:
        blocks.append(Note(f"Shown are the first {MOST_MODELS} of {len(looks)} models."))
        looks = looks[:MOST_MODELS]
    teachers = {id(look) for look in found.teachers.values()}
    cosines = {
        f"teacher {look.label}" if id(look) in teachers else look.label: look.features["image"]
        @ look.features["text"].T
        for look in looks
        if look.features is not None
    }
    judges = [label for label in cosines if label in found.students] or list(cosines)
    shown = _Shown(pairs)
    to_text = _direction(cosines, judges, shown, "image")
    to_image = _direction({label: one.T for label, one in cosines.items()}, judges, shown, "text")
    return PageSection("retrieval", title, [*blocks, *to_text, *to_image], _about(pairs))


def _about(pairs: ImageCaptions) -> str:
    count, total = len(pairs.images), pairs.total
    part = "all of its" if total == count else f"the first {count:,} of its" + (f" {total:,}" if total else "")
    return (
        f"Set {pairs.item.name}, {part} images. Candidates are the analyzed images or captions; numbers "
        "are cosines. A query is right if its own image or caption comes first."
    )


class _Shown:
    """Cache of thumbnails and captions of the pairs."""

    def __init__(self, pairs: ImageCaptions) -> None:
        self.pairs, self.texts, self.owners = pairs, pairs.texts, pairs.owners
        self._made: dict[int, Thumbnail] = {}

    def thumbnail(self, image: int) -> Thumbnail:
        """Thumbnail of an image, with its first caption as alternative text."""
        if image not in self._made:
            self._made[image] = encode_thumbnail(self.pairs.images[image], _cut(self.pairs.captions[image][0]))
        return self._made[image]


def _direction(cosines: Mapping[str, Tensor], judges: Sequence[str], shown: _Shown, query: str) -> list[Block]:
    """Examples of one direction; ``cosines`` has one row per query."""
    answers = {label: one.topk(min(SHOWN, one.shape[1]), dim=1).indices for label, one in cosines.items()}
    # One caption per image is a query.
    rows = list(range(len(shown.pairs.images))) if query == "image" else shown.pairs.firsts
    owners = shown.owners
    first = {label: [_owner(query, owners, int(answers[label][row, 0])) for row in rows] for label in cosines}
    images = [row if query == "image" else owners[row] for row in rows]
    right = {
        label: [mine == image for mine, image in zip(found, images, strict=True)] for label, found in first.items()
    }
    way = "Image to text" if query == "image" else "Text to image"
    summary = listed([f"{label} {sum(one):,} of {len(rows):,}" for label, one in right.items()], MOST_MODELS)
    blocks: list[Block] = [Note(f"{way}, right at rank 1: {summary}.")]
    for title, numbers in _kinds([right[label] for label in judges]).items():
        made = [_example(rows[number], cosines, answers, shown, query) for number in _spread(numbers, QUERIES)]
        if made:
            blocks.append(Examples(f"{way}: {title}", made))
    return blocks


def _owner(query: str, owners: Sequence[int], answer: int) -> int:
    """Image that a result belongs to."""
    return owners[answer] if query == "image" else answer


def _kinds(right: Sequence[Sequence[bool]]) -> dict[str, list[int]]:
    """Indices of the queries that all students get right, that they differ on, that all get wrong."""
    counts = [sum(column) for column in zip(*right, strict=True)]
    everyone = len(right)
    kinds = {
        "right" if everyone == 1 else "right for every student": [i for i, n in enumerate(counts) if n == everyone],
        "wrong" if everyone == 1 else "wrong for every student": [i for i, n in enumerate(counts) if n == 0],
    }
    if everyone > 1:
        kinds["students differ"] = [i for i, n in enumerate(counts) if 0 < n < everyone]
    return kinds


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Evenly spaced subset: neighbours in a set are often similar."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[round((i + 0.5) * len(numbers) / count - 0.5)] for i in range(count)]


def _example(
    row: int, cosines: Mapping[str, Tensor], answers: Mapping[str, Tensor], shown: _Shown, query: str
) -> Example:
    image = row if query == "image" else shown.owners[row]
    made = []
    for label, one in cosines.items():
        numbers = answers[label][row].tolist()
        made.append((label, [_answer(n, one[row, n].item(), image, shown, query) for n in numbers]))
    asked = _cut(" / ".join(shown.pairs.captions[image]) if query == "image" else shown.texts[row])
    return Example(asked, shown.thumbnail(image) if query == "image" else None, made)


def _answer(number: int, cosine: float, image: int, shown: _Shown, query: str) -> Answer:
    owner = _owner(query, shown.owners, number)
    if query == "image":
        return Answer(_cut(shown.texts[number]), owner == image, cosine)
    return Answer(_cut(shown.pairs.captions[number][0]), owner == image, cosine, shown.thumbnail(number))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
