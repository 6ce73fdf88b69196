"""CLIP's tokenizer cut to a corpus: the same pieces, every text still encodable, loaded by stock open_clip."""

from __future__ import annotations

import json
import shutil

import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from transformers import AutoTokenizer

from harness.data.openmoji import sets
from harness.data.openmoji.annotations import read_icons
from harness.model_folders import shipped
from harness.tokenizers import END, PAD, START, openmoji_corpus, write_tokenizer

SHIPPED = shipped("tokenizers", "openmoji")
CLIP = SimpleTokenizer()
LONG = 77


@pytest.fixture(scope="module")
def cut() -> HFTokenizer:
    """The shipped tokenizer as open_clip wraps it."""
    return HFTokenizer(str(SHIPPED), context_length=LONG)


def pieces(cut: HFTokenizer, texts: list[str]) -> list[list[str]]:
    return [[t for t in cut.tokenizer.convert_ids_to_tokens(row) if t != PAD] for row in cut(texts).tolist()]


def whole_pieces(texts: list[str]) -> list[list[str]]:
    """What the whole tokenizer gives, cut as long."""
    return [[CLIP.decoder[i] for i in row[: row.index(CLIP.eot_token_id) + 1]] for row in CLIP(texts, LONG).tolist()]


def prompts() -> list[str]:
    kinds = ("a photo of", "an emoji of", "an icon of", "a drawing of")
    tones = ("light", "medium-light", "medium", "medium-dark", "dark")
    names = [icon.annotation for icon in read_icons()][::97]
    texts = [f"{kind} a {name} with {tone} skin tone" for kind in kinds for name in names for tone in tones]
    return texts + [template.format(c=name) for template in sets.TEMPLATES for name in names]


@pytest.mark.slow
def test_every_annotation_has_clips_own_pieces(cut):
    texts = [icon.annotation for icon in read_icons()]
    assert pieces(cut, texts) == whole_pieces(texts)


def test_prompts_have_clips_own_pieces(cut):
    assert pieces(cut, prompts()) == whole_pieces(prompts())


@pytest.mark.parametrize(
    "text",
    [
        "It's A TEST, Don't!",
        "WAVING  hand:\n dark\tskin tone",
        "piñata &amp; caf\u0065\u0301",
        "women\u2019s room",
        "1st 2,000",
    ],
)
def test_text_is_cleaned_as_clip_does(cut, text):
    together = "".join(pieces(cut, [text])[0])
    assert together == "".join(whole_pieces([text])[0])


@pytest.mark.parametrize("text", ["xylophonist quokkas", "zürich", "你好", "🦊", "naïve façade", "ßþ"])
def test_words_of_no_corpus_are_encoded_and_come_back(cut, text):
    ids = cut.tokenizer(text).input_ids
    assert cut.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_annotations_come_back_but_for_case_and_spaces(cut):
    for text in [icon.annotation for icon in read_icons()][::50]:
        back = cut.tokenizer.decode(cut.tokenizer(text).input_ids, skip_special_tokens=True)
        assert back.replace(" ", "") == text.lower().replace(" ", "")


def test_truncation_keeps_start_and_end(cut):
    ids = cut([" ".join(["person"] * 50), "person"], context_length=16)
    start, end = cut.tokenizer.convert_tokens_to_ids([START, END])
    assert ids.shape == (2, 16)
    assert ids[0].tolist() == [start, *ids[0, 1:2].tolist() * 14, end]
    assert ids[1].tolist() == [start, ids[0, 1].item(), end, *[0] * 13]


def test_ids_are_what_open_clip_relies_on(cut):
    vocabulary = cut.tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert vocabulary[PAD] == cut.tokenizer.pad_token_id == 0
    assert vocabulary[END] == len(vocabulary) - 1, "open_clip pools the text at the highest id"
    assert cut(prompts()).argmax(1).tolist() == [len(row) - 1 for row in pieces(cut, prompts())]


def test_an_empty_text_is_start_and_end(cut):
    assert pieces(cut, [""]) == [[START, END]]


def test_the_shipped_folder_is_what_the_command_makes(tmp_path):
    size = write_tokenizer(openmoji_corpus(), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes()
    assert size == len(AutoTokenizer.from_pretrained(str(SHIPPED)))


def test_a_corpus_of_ones_own(tmp_path):
    size = write_tokenizer(["a mantis shrimp"], tmp_path)
    small = HFTokenizer(str(tmp_path), context_length=LONG)
    assert 512 + 3 < size < 560
    assert pieces(small, ["a mantis shrimp"]) == whole_pieces(["a mantis shrimp"])
    assert len(pieces(small, ["rhinoceros"])[0]) > len(whole_pieces(["rhinoceros"])[0])


def test_open_clip_loads_it_from_an_export_that_moved(tmp_path):
    size = len(AutoTokenizer.from_pretrained(str(SHIPPED)))
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": size, "width": 8, "heads": 1, "layers": 1,
                     "hf_tokenizer_name": "a-name-that-nobody-looks-up"},
    }  # fmt: skip
    shutil.copytree(SHIPPED, tmp_path / "export")
    (tmp_path / "export" / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    (tmp_path / "export").rename(tmp_path / "moved")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'moved'}")
    ids = tokenizer(["waving hand: dark skin tone"])
    assert ids.shape == (1, 16)
    assert ids.max() == size - 1
    assert pieces(tokenizer, ["waving hand"]) == whole_pieces(["waving hand"])
