"""What users write as paths: `~` is expanded here, for recipes, suites, studies and the options of all commands."""

from __future__ import annotations

import os
import re

from harness.errors import UserError

# Where a path begins: at the start, after a kind of model, after a comma or an open brace.
_BEGINNING = re.compile(r"(^|[,{])(\s*(?:run:|local-dir:)?)(~[^/,{}]*)(?=[/,}]|$)")


def expand_home(text: str) -> str:
    """Replace `~` and `~user` at the beginning of a path, or of each path in a list with commas or braces.

    Raises:
        UserError: it is nobody's home folder; written as it is, it would make a folder named `~`.
    """
    if text.startswith("pipe:"):  # a command, which the shell expands
        return text
    return _BEGINNING.sub(lambda match: f"{match[1]}{match[2]}{_home(match[3], match.string, match.end())}", text)


def _home(word: str, text: str, end: int) -> str:
    home = os.path.expanduser(word)
    # A file may well be called ~backup.csv.
    if home != word or (word != "~" and text[end : end + 1] != "/"):
        return home
    whose = f"there is no user {word[1:]!r}" if word != "~" else "your home folder is not known, as HOME is not set"
    raise UserError(
        f"{text!r} cannot be expanded: {whose}; write the whole path, or ./{word} for a folder of that name"
    )
