"""Shards that are not on a disk: who opens them, and what is said when that cannot work."""

import os
import shlex
from pathlib import Path
from shutil import which
from typing import Any

from webdataset.gopen import Pipe, gopen, gopen_schemes, rewrite_url

from harness.data.entries import PIPE, is_remote
from harness.data.regular_files import open_regular
from harness.errors import UserError

# What webdataset's openers start, by the names of their functions.
_PROGRAMS = {"gopen_curl": "curl", "gopen_hf": "curl", "gopen_gsutil": "gsutil", "gopen_ais": "ais"}
_BUFFER = 2**16
_BY_COMMAND = 'a command that writes the shard to its output, as in "pipe:rclone cat store:folder/{00000..00009}.tar"'


def opener(shard: str) -> str:
    """Return what webdataset's gopen opens for a shard: itself, or for s3://, which it does not know, AWS's client."""
    if shard.startswith("s3://") and "s3" not in gopen_schemes and rewrite_url(shard) == shard:
        return f"{PIPE}aws s3 cp {shlex.quote(shard)} -"
    return shard


def check_remote(pattern: str) -> None:
    """Refuse what cannot be opened, before hours of training rather than as broken shards.

    Raises:
        UserError: webdataset does not know such addresses, the program for them is missing, or there is a * in it.
    """
    scheme = rewrite_url(opener(pattern)).partition(":")[0]
    if scheme not in (*gopen_schemes, "file"):
        known = ", ".join(f"{name}://" for name in ("s3", *gopen_schemes) if name not in ("pipe", "__default__"))
        raise UserError(
            f"data.train: {pattern} cannot be opened, webdataset knows {known}; read from elsewhere by {_BY_COMMAND}."
        )
    if not pattern.startswith(PIPE) and "*" in pattern:
        raise UserError(
            f"data.train: {pattern} has a *, but remote shards cannot be listed; name them by a range such as "
            "{00000..00009}."
        )
    program = _program(pattern)
    if program is not None and which(program) is None:
        raise UserError(
            f"data.train: {pattern} is read by the program {program}, which is not installed here; install it, or use "
            f"{_BY_COMMAND}."
        )


def open_shard(shard: str) -> Any:
    """Return a shard's stream; one of a program says at its end, to `failure`, whether it is whole."""
    if not is_remote(shard) and rewrite_url(shard) == shard:
        return open_regular(Path(shard), int(os.environ.get("GOPEN_BUFFER", _BUFFER)))  # the variable is webdataset's
    stream = gopen(opener(shard))
    if isinstance(stream, Pipe):
        # webdataset asks for the exit code at each read and so by chance: a download cut off between two members could
        # pass for a whole shard, and what came just before the break be thrown away. Its words hold hf://'s token.
        stream.ignore_errors = True
    return stream


def close_file(stream: Any) -> None:
    """Close a file; a program is waited for, see `failure`."""
    if not isinstance(stream, Pipe):
        stream.close()


def failure(shard: str, stream: Any, *, whole: bool) -> str:
    """Return how the program behind a stream has failed, nothing if it has not or if there is none.

    Args:
        shard: its address or command.
        stream: of `open_shard`.
        whole: whether the archive was read to its end.
    """
    if not isinstance(stream, Pipe):
        return ""
    if whole:
        while stream.read(1 << 20):  # what pads the archive, lest the program be cut off
            pass
    elif stream.read(1):
        return ""  # it goes on: what it writes is broken
    code = stream.proc.wait()
    name = _program(shard) or "the command"
    return "" if code in stream.ignore_status else f"{name} could not read it and ended with exit code {code}"


def _program(address: str) -> str | None:
    """Return the program that is started for an address; None for a command, and for what needs none."""
    if opener(address) != address:
        return "aws"
    handler = gopen_schemes.get(rewrite_url(address).partition(":")[0])
    return _PROGRAMS.get(getattr(handler, "__name__", ""))
