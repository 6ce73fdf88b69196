"""Sentences for what the disk, the file server or the operating system refuses."""

import errno
import os
import re
from pathlib import Path

_AGAIN = "run the same command again"
_PERMISSION = "no permission to read or write{for_file}; choose another folder or change its permissions"
_SPACE = f"no space left on the disk{{for_file}}; free some space and {_AGAIN}"
_BUSY = "{file} is in use by another program; end that or choose another path"
_NO_DEVICE = f"the disk of {{file}} is not there; mount it and {_AGAIN}"
_SENTENCES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.ENAMETOOLONG: "the name {file} is too long; choose one with at most 255 bytes in each part of the path",
    errno.EFBIG: "{file} is larger than its file system or the limit on sizes of files allows; write to another "
    "disk, or raise the limit (ulimit -f)",
    errno.EIO: f"the disk failed at {{file}} (input/output error); check the disk and its connection, and {_AGAIN}",
    errno.ESTALE: f"the file server no longer has {{file}} as it was opened (stale handle); mount it anew and {_AGAIN}",
    errno.EMFILE: "too many files are open in this process{for_file}; raise the limit (ulimit -n 65536) or lower the "
    "number of workers",
    errno.ENFILE: f"too many files are open on this machine{{for_file}}; close other programs and {_AGAIN}",
    errno.ELOOP: "the symbolic links at {file} lead in a circle; remove one of them or choose another path",
    errno.ETXTBSY: _BUSY,
    errno.EBUSY: _BUSY,
    errno.ENODEV: _NO_DEVICE,
    errno.ENXIO: _NO_DEVICE,
    errno.ENOENT: f"{{file}} is not there, or was deleted or moved meanwhile; check the path and {_AGAIN}",
    errno.ENOTDIR: "{in_the_way}; choose another folder or move it away",
    errno.EISDIR: "{in_the_way}; choose another folder or move it away",
    errno.EEXIST: "{in_the_way}; choose another folder or move it away",
    errno.ENOTEMPTY: "the folder {file} is not empty; choose another folder or move it away",
}
# About one file, and no sentence without its name.
_OF_A_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY)
# An OSError that came out of a data worker is only text, and so are those of safetensors.
_PYTHON, _RUST = re.compile(r"\[Errno (\d+)\] [^:'\"]*(?:: (['\"])(.*)\2)?$"), re.compile(r"\(os error (\d+)\)")


def disk_sentence(error: Exception) -> str | None:
    """The sentence for an error of the operating system about a file or disk; None for any other error."""
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:  # a library that wants text
        return f"{error.object!r} has bytes that are not UTF-8; rename that file or folder, or choose another"
    number, file = _number_and_file(error)
    if number is None or (number in _OF_A_FILE and file is None):
        return None
    template = _SENTENCES.get(number)
    if template is None:
        return None if file is None else f"{file}: {os.strerror(number)}; check that path and {_AGAIN}"
    way = "" if file is None else _in_the_way(number, file)
    return template.format(file=file or "a file", for_file=f" for {file}" if file else "", in_the_way=way)


def _number_and_file(error: Exception) -> tuple[int | None, str | None]:
    if isinstance(error, OSError) and error.errno is not None:
        # A rename names its target second, and the target is what it stumbled over.
        file = error.filename2 or error.filename
        return error.errno, None if file is None or isinstance(file, int) else os.fsdecode(file)
    lines = str(error).strip().splitlines()
    if isinstance(error, OSError) and lines and (match := _PYTHON.search(lines[-1])):
        return int(match[1]), match[3]
    if type(error).__name__ == "SafetensorError" and (match := _RUST.search(str(error))):
        return int(match[1]), None
    return None, None


def _in_the_way(number: int, name: str) -> str:
    path = Path(name)
    if number == errno.EISDIR:
        return f"{path} is a folder where a file is needed"
    try:
        file = next((part for part in (path, *path.parents) if part.is_file()), None)
    except OSError:
        file = None
    return f"{file} is a file where a folder is needed" if file else f"{path} is in the way"
