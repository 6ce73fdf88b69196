"""Data sets in the layouts that clip_benchmark's own builder reads, such as torchvision's; from the disk alone."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from clip_benchmark.datasets import builder

from harness.config import EvalSet
from harness.errors import UserError
from harness.evaluate.results import TASKS


class DownloadRefusedError(RuntimeError):
    """The builder wanted to fetch something: a file that it needs is not there."""


def build_native_dataset(item: EvalSet, transform: Callable[[Any], Any] | None) -> Any:
    """The data set that clip_benchmark's builder makes of the folder, with class names and templates where it has any.

    Raises:
        UserError: what the builder needs is not in the folder.
    """
    try:
        with no_downloads(), redirect_stdout(io.StringIO()):  # it speaks of downloads that are refused
            data = builder.build_dataset(
                item.dataset, root=item.path, transform=transform, split="test", download=False, task=TASKS[item.kind]
            )
    except ModuleNotFoundError as error:
        raise native_set_error(item, f"it needs the Python package {error.name}; install that") from error
    except Exception as error:  # whatever torchvision and the builder's hundred branches raise over a folder
        raise native_set_error(item, f"it cannot be read from there ({' '.join(str(error).split())[:300]})") from error
    _check_classes(item, data)
    return data


def native_set_error(item: EvalSet, what: str) -> UserError:
    """The error that says which set is at fault, where it is, and what is wrong with it."""
    return UserError(f"evaluation set {item.name} (clip_benchmark's {item.dataset}) in {Path(item.path)}: {what}")


def check_dataset_known(dataset: str) -> None:
    """Tell a name that clip_benchmark does not know from a set that is not there.

    Raises:
        UserError: it does not know the name.
    """
    with TemporaryDirectory(prefix="clipkd-") as nothing, no_downloads(), redirect_stdout(io.StringIO()):
        try:
            builder.build_dataset(dataset, root=f"{nothing}/none", download=False)
        except ValueError as error:
            if "Unsupported dataset" in str(error):
                raise UserError(
                    f"clip_benchmark knows no data set {dataset!r}; write its own name, such as cifar10, or name a "
                    "folder in its webdataset layout with --dataset-path"
                ) from error
        except Exception:
            return  # it is known: something is missing, which is not asked here


def default_kind(dataset: str) -> str:
    """The kind of a set that clip_benchmark knows by name."""
    task = builder.get_dataset_default_task(dataset)
    return next(kind for kind, name in TASKS.items() if name == task)


def _check_classes(item: EvalSet, data: Any) -> None:
    """Labels come from the order of the class folders, names from clip_benchmark: one folder less shifts them all."""
    numbers = getattr(data, "class_to_idx", None)
    if item.kind != "zeroshot" or not numbers:
        return
    found = len(set(numbers.values()))
    if found != len(data.classes):
        raise native_set_error(
            item, f"it has {found} class folders, but there are {len(data.classes)} class names for it"
        )


@contextmanager
def no_downloads() -> Iterator[None]:
    """Make the builder's wget, gdown, kaggle, curl and requests an error: nothing is fetched behind the user's back."""

    def refuse(wanted: Any, *_: Any, **__: Any) -> None:
        raise DownloadRefusedError(f"something is missing that the builder would have fetched by or from {wanted}")

    # Everything that goes to the network asks for an address or starts a program.
    with patch("subprocess.Popen", refuse), patch("os.system", refuse), patch("socket.getaddrinfo", refuse):
        yield
