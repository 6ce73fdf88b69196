"""Datasets in the native layouts of clip_benchmark's builder, such as torchvision's; from disk only."""

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
from harness.evaluate.results import TASKS, SetKind


class DownloadRefusedError(RuntimeError):
    """The builder tried to download a file that is missing on disk."""


def build_native_dataset(item: EvalSet, transform: Callable[[Any], Any] | None) -> Any:
    """Dataset that clip_benchmark's builder makes of the folder, with class names and templates if it has any.

    Raises:
        UserError: the folder lacks what the builder needs.
    """
    try:
        with no_downloads(), redirect_stdout(io.StringIO()):  # it prints about downloads that are refused
            data = builder.build_dataset(
                item.dataset, root=item.path, transform=transform, split="test", download=False, task=TASKS[item.kind]
            )
    except ModuleNotFoundError as error:
        raise native_set_error(item, f"it needs the Python package {error.name}; install it") from error
    except Exception as error:  # torchvision and the builder's many branches raise anything
        raise native_set_error(item, f"it cannot be read from there ({' '.join(str(error).split())[:300]})") from error
    _check_classes(item, data)
    return data


def native_set_error(item: EvalSet, what: str) -> UserError:
    """Error that names the set, its folder and what is wrong with it."""
    return UserError(f"evaluation set {item.name} (clip_benchmark's {item.dataset}) in {Path(item.path)}: {what}")


def check_dataset_known(dataset: str) -> None:
    """Check that clip_benchmark knows a dataset name, whether or not its files are there.

    Raises:
        UserError: the name is unknown.
    """
    with TemporaryDirectory(prefix="clipkd-") as nothing, no_downloads(), redirect_stdout(io.StringIO()):
        try:
            builder.build_dataset(dataset, root=f"{nothing}/none", download=False)
        except ValueError as error:
            if "Unsupported dataset" in str(error):
                raise UserError(
                    f"clip_benchmark does not know a dataset {dataset!r}; use its own name, such as cifar10, or give a "
                    "folder in its webdataset layout with --dataset-path"
                ) from error
        except Exception:
            return  # the name is known; only files are missing


def default_kind(dataset: str) -> SetKind:
    """Kind of a dataset that clip_benchmark knows by name."""
    task = builder.get_dataset_default_task(dataset)
    return next(kind for kind, name in TASKS.items() if name == task)


def _check_classes(item: EvalSet, data: Any) -> None:
    """Labels follow the order of class folders, names come from clip_benchmark: a missing folder would shift them."""
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
    """Turn the builder's downloads (wget, gdown, kaggle, curl, requests) into errors."""

    def refuse(wanted: Any, *_: Any, **__: Any) -> None:
        raise DownloadRefusedError(f"a file is missing that the builder would download with {wanted}")

    # Every download resolves a host name or starts a program.
    with patch("subprocess.Popen", refuse), patch("os.system", refuse), patch("socket.getaddrinfo", refuse):
        yield
