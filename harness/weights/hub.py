"""Access to the Hugging Face Hub, which reports a missing network within seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from open_clip.pretrained import download_pretrained_from_hf

from harness.errors import UserError
from harness.model_folders import read_config_file

PREFIX = "hf-hub:"
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Hub:
    """What a model needs of the Hub.

    Args:
        model: for messages.
        needs: what for, and the repository: ``("weights", "timm/vit_base_patch16_clip_224.openai")``.
    """

    model: str
    needs: Sequence[tuple[str, str]]

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A block that may download; where the Hub does not answer, it runs from the cache alone.

        Raises:
            UserError: the block lacked a file: what was looked for, and where.
        """
        silence = silent(constants.ENDPOINT) if self.needs else None
        was, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE or silence is not None
        try:
            yield
        except Exception as error:
            if self.needs and (reason := _lack_of_a_file(error)):
                raise self._missing(silence or f"does not give it ({reason})") from error
            raise
        finally:
            constants.HF_HUB_OFFLINE = was

    def _missing(self, why: str) -> UserError:
        what = " and ".join(f"{purpose} ({repo})" for purpose, repo in self.needs)
        return UserError(
            f"model {self.model} needs {what} from the Hugging Face Hub, which {why}, and the cache folder "
            f"{constants.HF_HUB_CACHE} does not have all of it; connect to the network, set HF_HOME to a cache that "
            "has it, or use weights from a file or folder"
        )


@lru_cache
def silent(endpoint: str) -> str | None:
    """Why the Hub is not to be asked, in words that follow "which"; None when it answers. Asked once a process.

    Args:
        endpoint: its address.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask"
    try:
        # The Hub's own session, so that proxies and certificates are those of the downloads.
        huggingface_hub.utils.get_session().head(endpoint, timeout=_PATIENCE_S)
    except Exception as error:  # another class with every version of the Hub's client
        return f"does not answer at {endpoint} ({' '.join(str(error).split())[:100]})"
    return None


def needs_of(
    source: str, repo: str | None, config: dict[str, Any], image_tower: str = "", text_tower: str = ""
) -> list[tuple[str, str]]:
    """What a model must have from the Hub or its cache.

    Args:
        source: as open_clip's factory takes it.
        repo: of the weights that a tag names, or None.
        config: its open_clip model config.
        image_tower: timm's name of an image tower whose own weights are wanted, or "".
        text_tower: likewise a text tower of the Hub.
    """
    text = config.get("text_cfg", {})
    needs = [("weights", repo)] if repo else []
    if source.startswith(PREFIX):
        needs.append(("config and weights", source.removeprefix(PREFIX)))
    tokenizer = text.get("hf_tokenizer_name")
    if tokenizer and not source.startswith("local-dir:") and not Path(tokenizer).is_dir():
        needs.append(("its tokenizer", tokenizer))
    if text.get("hf_model_name"):
        needs.append((f"its text tower's config{' and weights' if text_tower else ''}", text["hf_model_name"]))
    if image_tower:
        needs.append(("timm's weights of its image tower", image_tower))
    return needs


def hub_config(spec: str) -> dict[str, Any]:
    """The open_clip config file of ``hf-hub:REPO``, with its ``model_cfg``.

    Raises:
        UserError: it is not available, or is not such a file.
    """
    repo = spec.removeprefix(PREFIX)
    with Hub(spec, [("its config and weights", repo)]).asked():
        path = Path(download_pretrained_from_hf(repo, filename="open_clip_config.json"))
    return read_config_file(path, f"model {spec!r}: ")


def hub_weights(spec: str) -> Path:
    """The weights of ``hf-hub:REPO``, downloaded if they are not in the cache yet.

    open_clip itself goes on with random weights where this fails, and says so in its log alone.

    Raises:
        FileNotFoundError: they are not available.
    """
    return Path(download_pretrained_from_hf(spec.removeprefix(PREFIX)))


def _lack_of_a_file(error: BaseException) -> str:
    """The first reason in a chain of errors where a missing file or connection is behind them; empty where none is.

    open_clip wraps these in a RuntimeError, and the Hub and transformers wrap what the connection said.
    """
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    if not any(isinstance(link, OSError) for link in chain):
        return ""
    words = " ".join(str(chain[-1]).partition("For more information")[0].split())
    return words[:200] or type(chain[-1]).__name__
