"""OpenAI CLIP's byte-pair encoding, cut to the merges that a corpus uses, as a Hugging Face tokenizer folder.

On the corpus the cut vocabulary splits text just as the whole one does, with a tenth of the entries or less, so that
small models do not spend their parameters on words they never meet; other words are still encoded, in more pieces,
down to bytes. open_clip reads the folder through `text_cfg.hf_tokenizer_name`, and from the export's own folder when
a model is loaded as `local-dir:`.

    python -m harness.tokenizers        # regenerates harness/assets/tokenizers/openmoji
"""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from harness.data.openmoji.annotations import read_icons

PAD, START, END = "<pad>", "<start_of_text>", "<end_of_text>"
# What open_clip's SimpleTokenizer takes for a word, in lower-case text.
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PROMPTS = (
    "a photo of a person. an image of an animal. a picture of the object. an icon of a symbol. an emoji of a face.",
    "a drawing of a flag. a sketch of food. a cartoon of the man. an illustration of the woman. a logo. clip art.",
    "with a light skin tone, medium-light skin tone, medium skin tone, medium-dark skin tone, dark skin tone",
    "on a white background, a small, large, red, green, blue, round cat, dog, house, tree, car",
    "it's, don't, they're, we've, I'm, I'll, I'd... what? yes! (one, two; three: four & five)",
)
_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "bos_token": START,
    "eos_token": END,
    "clean_up_tokenization_spaces": False,
}

Merge = tuple[str, str]


def write_tokenizer(corpus: Iterable[str], out: Path) -> int:
    """Cut CLIP's tokenizer to a corpus and write it as a folder that `AutoTokenizer.from_pretrained` loads.

    Args:
        corpus: captions and prompts whose words keep CLIP's splitting.
        out: the folder, made if it is not there; only tokenizer.json and tokenizer_config.json in it are written.

    Returns:
        The vocabulary's size, for `text_cfg.vocab_size`.
    """
    clip = SimpleTokenizer()
    tokenizer = _assemble(clip, _used_merges(clip, corpus))
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8")
    return tokenizer.get_vocab_size()


def openmoji_corpus() -> list[str]:
    """Return the texts that the shipped tokenizer is cut to: every OpenMoji annotation, and words of usual prompts."""
    return [icon.annotation for icon in read_icons()] + list(_PROMPTS)


def _used_merges(clip: SimpleTokenizer, corpus: Iterable[str]) -> list[Merge]:
    """Return the merges that encoding the corpus applies, in CLIP's order of rank.

    Where the whole list picks the best-ranked merge that applies, so does this one: it has that merge and no better.
    """
    words = {word for text in corpus for word in clip.pat.findall(clip.clean_fn(text))}
    used = {merge for word in words for merge in _trace(clip, word)}
    return sorted(used, key=clip.bpe_ranks.__getitem__)


def _trace(clip: SimpleTokenizer, word: str) -> Iterable[Merge]:
    """Yield the merges that turn a word's bytes into its tokens."""
    symbols = [clip.byte_encoder[byte] for byte in word.encode()]
    symbols[-1] += "</w>"
    while len(symbols) > 1:
        best = min(pairwise(symbols), key=lambda pair: clip.bpe_ranks.get(pair, float("inf")))
        if best not in clip.bpe_ranks:
            return
        yield best
        symbols = _merge(symbols, best)


def _merge(symbols: list[str], pair: Merge) -> list[str]:
    """Join every occurrence of the pair, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        # A symbol just made by joining is longer than the pair's first, so it is never joined twice.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def _assemble(clip: SimpleTokenizer, merges: list[Merge]) -> Tokenizer:
    """Build the tokenizer: pad is 0, as open_clip expects, and the end has the highest id, where open_clip pools."""
    symbols = list(clip.byte_encoder.values())
    entries = [PAD, *symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges), START, END]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens([PAD, START, END])
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    # "Ġ" is the byte-level alphabet's space.
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("</w>", "Ġ"), decoders.ByteLevel(), decoders.Strip(" ", 0, 1)]
    )
    return tokenizer


if __name__ == "__main__":
    folder = Path(__file__).parent / "assets" / "tokenizers" / "openmoji"
    print(f"wrote {folder} with {write_tokenizer(openmoji_corpus(), folder)} entries")
