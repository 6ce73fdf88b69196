"""The command: our arguments, and everything else for open_clip's trainer."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from kdlosses.integrations.open_clip_train.errors import ConfigError

PROG = "python -m kdlosses.integrations.open_clip_train"


def main(argv: Sequence[str]) -> int:
    """Train or export; returns the exit code.

    Args:
        argv: ``--kd-config FILE`` and open_clip_train's own arguments, or ``--export CHECKPOINT OUT``.
    """
    own, rest = _parser().parse_known_args(list(argv))
    try:
        if own.export:
            return _export(own.export, own.kd_config, rest)
        return _train(own.kd_config, [expand_argument(argument) for argument in rest])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def expand_argument(argument: str) -> str:
    """Expand `~` in a path among the trainer's arguments, which a shell leaves in --name=~/x."""
    home = re.compile(r"\A(--[\w-]+=|)(~[^/]*)")
    return home.sub(lambda match: match[1] + os.path.expanduser(match[2]), argument)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [-h] (--kd-config FILE <arguments of open_clip_train.main> | --export CHECKPOINT OUT)",
        description="Train with open_clip's own trainer and a loss of kdlosses in place of its distillation loss.",
        epilog="All other arguments are the trainer's: python -m open_clip_train.main --help. --distill-model and "
        "--distill-pretrained name the teacher.",
        allow_abbrev=False,  # or the trainer's own arguments would be taken for ours
    )
    parser.add_argument(
        "--kd-config",
        metavar="FILE",
        type=os.path.expanduser,
        help="YAML with the loss: weights, variant, backend, options, check",
    )
    parser.add_argument(
        "--export",
        nargs=2,
        type=os.path.expanduser,
        metavar=("CHECKPOINT", "OUT"),
        help="write the student of a checkpoint, without the loss's parameters, as a file that open_clip loads",
    )
    return parser


def _export(paths: Sequence[str], kd: str | None, rest: Sequence[str]) -> int:
    if kd is not None or rest:
        raise ConfigError(
            f"--export takes a checkpoint and a file to write, and nothing else; got {' '.join(rest) or '--kd-config'}"
        )
    from kdlosses.integrations.open_clip_train.checkpoints import export

    count = export(*paths)
    print(f"wrote {paths[1]}: {count} tensors; load it with open_clip.create_model(NAME, pretrained={paths[1]!r})")
    return 0


def _train(kd: str | None, rest: Sequence[str]) -> int:
    if kd is None:
        raise ConfigError(
            "--kd-config is missing: name a YAML file with the loss, such as one line 'weights: {contrastive: 1, "
            "crd: 1, fd: 2000, icl: 1}'"
        )
    trainer = _trainer()
    from kdlosses.integrations.open_clip_train.run import Run
    from kdlosses.integrations.open_clip_train.settings import read_settings

    run = Run(trainer, read_settings(kd))
    with run.replaced():
        code = trainer.main(list(rest))
    if code:  # it has said why
        return 1
    run.export()
    return 0


def _trainer() -> ModuleType:
    try:
        import yaml  # noqa: F401, for read_settings

        return importlib.import_module("open_clip_train.main")
    except ImportError as error:
        raise ConfigError(
            f"open_clip's trainer cannot be imported ({error}); install it with "
            "pip install '.[open-clip]' in a checkout of kdlosses"
        ) from error
