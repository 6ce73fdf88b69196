"""What transformers' Trainer can do and a loss of the whole batch cannot go along with."""

from __future__ import annotations

import torch.distributed as dist
from transformers import Trainer
from transformers.training_args import ParallelMode


def refuse_unsupported(trainer: Trainer) -> None:
    """Refuse what would train on another loss than the one that was given.

    Args:
        trainer: with its arguments.

    Raises:
        ValueError: naming it, and what to do instead.

    Example:
        >>> from types import SimpleNamespace
        >>> from kdlosses.integrations.hugging_face_limits import refuse_unsupported
        >>> refuse_unsupported(SimpleNamespace(compute_loss_func=print))
        Traceback (most recent call last):
            ...
        ValueError: the loss is given as loss=...; leave out compute_loss_func and label_smoothing_factor
    """
    if trainer.compute_loss_func is not None or trainer.args.label_smoothing_factor:
        raise ValueError("the loss is given as loss=...; leave out compute_loss_func and label_smoothing_factor")
    if trainer.args.n_gpu > 1:
        raise ValueError(
            f"the Trainer would copy the student to {trainer.args.n_gpu} GPUs (DataParallel), and each copy would see "
            f"its part of a batch alone; start it with torchrun --nproc-per-node {trainer.args.n_gpu}, or choose one "
            "GPU with CUDA_VISIBLE_DEVICES"
        )
    together = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if together > 1 and trainer.args.parallel_mode != ParallelMode.DISTRIBUTED:
        raise ValueError(
            f"there are {together} processes, but the Trainer takes each for a run of its own and would not keep "
            "their students equal; on CPUs it needs TrainingArguments(use_cpu=True, ddp_backend='gloo')"
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("CLIPDistillationTrainer runs in DDP alone, not with FSDP or DeepSpeed; leave them out")
