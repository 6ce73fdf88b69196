"""CLIP-KD's own training epoch with the losses of kdlosses, rewritten for toy models and data.

    python examples/clip_kd_trainer.py                                           # one process, on a CPU
    torchrun --nproc-per-node 2 examples/clip_kd_trainer.py --batch-size 8       # the same batch on two

What stands between ``build`` and ``save`` is what the released trainer does with its loss: its arguments, its optimizer
groups, its call, the tuple of seven terms. The lines marked NEW are what its ``main_kd.py`` has to gain; see
docs/integrations/clip_kd.md.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdlosses import share_parameters
from kdlosses.integrations.clip_kd import KDClipLoss

TERMS = ("task", "ckd", "icl", "cross_kd", "fd", "gd", "afd")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The released trainer's options, as far as the loss and this epoch read them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, weight in {"ckd": 1.0, "icl": 1.0, "cross_kd": 0.0, "fd": 2000.0, "gd": 0.0, "afd": 0.0}.items():
        parser.add_argument(f"--alpha_{name}_loss", type=float, default=weight)
    parser.add_argument("--batch-size", type=int, default=16, help="pairs of each process")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of an epoch, over all processes")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--wd", type=float, default=0.1)
    parser.add_argument("--grad-clip-norm", type=float)
    parser.add_argument("--precision", choices=["fp32", "amp_bf16"], default="fp32")
    parser.add_argument("--checkpoint", help="where to save")
    args = parser.parse_args(argv)
    args.s_embed_dim, args.t_embed_dim = 16, 24  # the released main reads these two from the models' configurations
    args.rank, args.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return args


class ToyCLIP(nn.Module):
    """Two linear towers that return what the models of the released code return."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.visual, self.text = nn.Linear(32, width), nn.Linear(32, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = F.normalize(self.visual(images), dim=1), F.normalize(self.text(texts), dim=1)
        return *features, self.logit_scale.exp()


def batches(args: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's pairs of each step; an epoch's pairs are the same whatever the number of processes."""
    images = torch.randn(args.pairs, 32, generator=torch.Generator().manual_seed(1))
    texts = images + 0.5 * torch.randn(args.pairs, 32, generator=torch.Generator().manual_seed(2))
    for rows in torch.arange(args.pairs).split(args.batch_size * args.world_size):
        if len(rows) == args.batch_size * args.world_size:
            mine = rows.chunk(args.world_size)[args.rank]
            yield images[mine], texts[mine]


def build(args: argparse.Namespace) -> tuple[nn.Module, nn.Module, KDClipLoss, torch.optim.Optimizer]:
    """Student, teacher, loss and optimizer."""
    torch.manual_seed(0)
    model: nn.Module = ToyCLIP(args.s_embed_dim)
    teacher = ToyCLIP(args.t_embed_dim).requires_grad_(False).eval()
    torch.manual_seed(args.rank)  # as released: what is made from here on differs between processes
    if args.world_size > 1:
        model = DistributedDataParallel(model)
    loss = KDClipLoss(args, gather_with_grad=True, cache_labels=True, rank=args.rank, world_size=args.world_size)
    share_parameters(loss)  # NEW: rank 0's parameters for all, and one gradient for all
    plain = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": args.wd},
        {"params": loss.parameters(), "weight_decay": 0.0},  # NEW: the decay; as released it is AdamW's default, 0.01
    ]
    return model, teacher, loss, torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-6)


def train_kd_one_epoch(
    args: argparse.Namespace, model: nn.Module, teacher: nn.Module, loss: KDClipLoss, optimizer: torch.optim.Optimizer
) -> None:
    """One epoch; rank 0 prints every step's terms."""
    model.train()
    for step, (images, texts) in enumerate(batches(args)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "amp_bf16"):
            image_features, text_features, logit_scale = model(images, texts)
            with torch.no_grad():
                t_image_features, t_text_features, t_logit_scale = teacher(images, texts)
            losses = loss(image_features, text_features, logit_scale, t_image_features, t_text_features, t_logit_scale)
            total_loss = sum(losses, torch.zeros(()))
        total_loss.backward()
        if args.grad_clip_norm is not None:
            trained = [*model.parameters(), *loss.parameters()]  # NEW: the loss's too
            torch.nn.utils.clip_grad_norm_(trained, args.grad_clip_norm)
        optimizer.step()
        with torch.no_grad():
            bare: Any = getattr(model, "module", model)
            bare.logit_scale.clamp_(0, math.log(100))
        if args.rank == 0:
            terms = " ".join(f"{name} {value.item():.4f}" for name, value in zip(TERMS, losses, strict=True))
            print(f"step {step}: loss {total_loss.item():.4f} = {terms}")


def save(args: argparse.Namespace, model: nn.Module, loss: KDClipLoss, optimizer: torch.optim.Optimizer) -> None:
    """The released checkpoint, and the loss's parameters."""
    checkpoint = {
        "state_dict": getattr(model, "module", model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "loss": loss.state_dict(),  # NEW: without it a resumed run goes on with other projections
    }
    torch.save(checkpoint, args.checkpoint)


def work(args: argparse.Namespace) -> None:
    """One epoch, and its checkpoint."""
    model, teacher, loss, optimizer = build(args)
    train_kd_one_epoch(args, model, teacher, loss, optimizer)
    if args.checkpoint and args.rank == 0:
        save(args, model, loss, optimizer)


def main(argv: Sequence[str] | None = None) -> None:
    """Alone, or among the processes that torchrun has started."""
    args = parse(argv)
    if args.world_size > 1:
        dist.init_process_group("gloo")
    work(args)
    if args.world_size > 1:
        # What still holds the group (DDP, hooks) goes first, and all leave together: else gloo may abort at the exit.
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
