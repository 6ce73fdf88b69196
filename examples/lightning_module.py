"""Distil a CLIP in Lightning: one process or DDP, accumulation, clipping, mixed precision, checkpoint, resume, export.

    python examples/lightning_module.py
    python examples/lightning_module.py --devices 2 --precision bf16-mixed       # DDP: the same batch, shared by two
    python examples/lightning_module.py --out run --epochs 4                      # goes on from run/last.ckpt if there

The models and the data are toys that need nothing but torch: put your own in their place.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kdlosses import CLIPKDLoss
from kdlosses.integrations.lightning import CLIPDistillation


class ToyCLIP(nn.Module):
    """Two small towers with open_clip's three outputs: image features, text features, the scale exponentiated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(64, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.text = nn.Sequential(nn.Embedding(100, width), nn.Flatten(), nn.Linear(8 * width, width))
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.text(texts), self.logit_scale.exp()


def pairs(count: int, seed: int) -> TensorDataset:
    """Images and texts that belong together."""
    generator = torch.Generator().manual_seed(seed)
    look = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    texts = torch.randint(100, (count, 8), generator=generator)
    return TensorDataset(look[texts].sum(1) + torch.randn(count, 64, generator=generator), texts)


def make_module(lr: float) -> CLIPDistillation:
    """Student, teacher, loss and optimizer; the loss's projections and temperature are the module's own parameters."""
    torch.manual_seed(0)
    student, teacher = ToyCLIP(16), ToyCLIP(24)
    loss = CLIPKDLoss({"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}, student_dim=16, teacher_dim=24)
    return CLIPDistillation(student, teacher, loss, partial(torch.optim.AdamW, lr=lr, weight_decay=0.1))


def export(checkpoint: Path, file: Path) -> None:
    """The student alone, from a checkpoint of the module: without loss, teacher or optimizer."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    student = {name.removeprefix("student."): v for name, v in state.items() if name.startswith("student.")}
    torch.save(student, file)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Distil a toy CLIP in Lightning.")
    parser.add_argument("--epochs", type=int, default=2, help="in all, with those before a checkpoint")
    parser.add_argument("--batch", type=int, default=32, help="pairs of a batch, over all processes")
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step, each with negatives of its own")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--clip", type=float, default=1.0, help="greatest norm of all gradients together")
    parser.add_argument("--devices", type=int, default=1, help="processes of this machine")
    parser.add_argument("--precision", default="32-true", help="Lightning's: 32-true, bf16-mixed, 16-mixed (CUDA), ...")
    parser.add_argument("--out", type=Path, default="runs/lightning", help="folder of last.ckpt and student.pt")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> L.Trainer:
    """Train, save after each epoch, export."""
    args = parse(argv)
    data, held_out = pairs(256, 1), pairs(64, 2)
    # On several processes Lightning shuffles and shares the data by a DistributedSampler. One process that has one too
    # sees the same pairs in each batch.
    sampler: DistributedSampler[Any] | None = (
        DistributedSampler(data, num_replicas=1, rank=0) if args.devices == 1 else None
    )
    loader = partial(DataLoader, batch_size=args.batch // args.devices)
    trainer = L.Trainer(
        max_epochs=args.epochs,
        devices=args.devices,
        strategy="ddp" if args.devices > 1 else "auto",
        precision=args.precision,
        accumulate_grad_batches=args.accumulate,
        gradient_clip_val=args.clip,
        callbacks=ModelCheckpoint(args.out, save_last=True),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = args.out / "last.ckpt"
    trainer.fit(
        make_module(args.lr),
        loader(data, sampler=sampler),
        loader(held_out),
        ckpt_path=last if last.exists() else None,
    )
    if trainer.is_global_zero:
        metrics = {name: f"{value:.3f}" for name, value in trainer.callback_metrics.items()}
        print(f"after {trainer.global_step} steps:", ", ".join(f"{name} {value}" for name, value in metrics.items()))
        export(last, args.out / "student.pt")
    return trainer


if __name__ == "__main__":
    main()
