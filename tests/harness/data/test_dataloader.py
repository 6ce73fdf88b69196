"""What a user is told of a failure in a worker, and what workers share: texts and tokenizers."""

from __future__ import annotations

import open_clip
import pytest
import torch

from harness.data.texts import Texts
from harness.data.tokens import leaders
from harness.errors import UserError
from tests.harness.data.pairs import load, numbers, take, write_csv, write_shards


def test_a_failure_in_a_worker_is_one_sentence(tmp_path):
    train = write_csv(tmp_path, 8)
    (tmp_path / "images" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^data\.train holds 7 usable samples, fewer than one batch of 8; lower"):
        take(load(train, batch_size=8, workers=2, max_skip_rate=0.5), 1)


def test_texts_come_back_as_they_were():
    texts, given = Texts(), ["a", "", None, "größe", None, "caf\udce9", "\n\0,", ""]
    for text in given:
        texts.append(text)
    assert [texts[index] for index in range(len(texts))] == given


def test_equal_tokenizers_are_used_once(tmp_path):
    calls = []

    def first(captions: list[str]) -> torch.LongTensor:
        calls.append("first")
        return numbers(captions)

    def second(captions: list[str]) -> torch.LongTensor:
        calls.append("second")
        return numbers(captions)

    batch = next(load(write_csv(tmp_path, 4), tokenizers={"student": first, "teacher": first, "other": second}))
    assert calls == ["first", "second"]
    assert batch.tokens["student"] is batch.tokens["teacher"] is not batch.tokens["other"]
    assert list(batch.tokens) == ["student", "teacher", "other"]


def test_open_clips_tokenizers_are_told_apart():
    clip, used, short = (open_clip.SimpleTokenizer(context_length=length) for length in (77, 77, 32))
    used("words that fill its cache")
    other = open_clip.SimpleTokenizer(clean="whitespace")
    found = leaders({"clip": clip, "used": used, "short": short, "other": other})
    assert found == {"clip": "clip", "used": "clip", "short": "short", "other": "other"}


def test_tokenizers_of_hugging_face_are_told_apart(tmp_path):
    from harness.tokenizers import write_tokenizer

    for name, corpus in (("a", ["a red cat"]), ("b", ["a red cat"]), ("c", ["a blue house"])):
        write_tokenizer(corpus, tmp_path / name)
    made = {name: open_clip.tokenizer.HFTokenizer(str(tmp_path / name), context_length=8) for name in "abc"}
    made["b"](["a cat"])
    made["long"] = open_clip.tokenizer.HFTokenizer(str(tmp_path / "a"), context_length=9)
    assert leaders(made) == {"a": "a", "b": "a", "c": "c", "long": "long"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("source", ["csv", "shards"])
def test_batches_for_a_gpu_are_pinned(tmp_path, source, cache, workers):
    train = write_csv(tmp_path, 8) if source == "csv" else write_shards(tmp_path, 8, per_shard=4)
    loader = load(train, cache=cache, workers=workers, pin_memory=True)
    batch = next(loader)
    assert batch.images.is_pinned() and batch.tokens["numbers"].is_pinned()
    loader.close()
