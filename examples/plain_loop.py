"""Distil a CLIP in a plain PyTorch loop: DDP, autocast, GradScaler and torch.compile, alone and together.

    python examples/plain_loop.py                                    # one process
    python examples/plain_loop.py --amp bf16 --compile inductor      # autocast and torch.compile
    python examples/plain_loop.py --amp fp16                         # autocast and GradScaler
    torchrun --nproc-per-node 2 examples/plain_loop.py --amp bf16    # DDP: the same batch, shared by two processes
    python examples/plain_loop.py --checkpoint run.pt --steps 40     # goes on from run.pt where it exists

The models and the data are toys that need nothing but torch: put your own in their place. ``train`` stays as it is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdlosses import CLIPKDLoss

AMP = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ToyCLIP(nn.Module):
    """Two small towers with open_clip's three outputs: image features, text features, the scale exponentiated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(64, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.text = nn.Sequential(nn.Embedding(100, width), nn.Flatten(), nn.Linear(8 * width, width))
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(images), self.text(texts), self.logit_scale.exp()


class Task(nn.Module):
    """Student and loss as one module, so that all that wraps it (DDP, compiler, optimizer) has the parameters of both.

    In DDP with the student, the loss's projections and temperatures start equal on all processes and stay equal. With
    the loss outside, ``kdlosses.share_parameters(loss)`` does that.
    """

    def __init__(self, student: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.student, self.loss = student, loss

    def forward(self, images: Tensor, texts: Tensor, *taught: Tensor) -> dict[str, Tensor]:
        return self.loss(*self.student(images, texts), *taught, output_dict=True)


def pairs(steps: range, batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of each step's batch; a step's pairs are the same whatever the number of processes."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    look = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        texts = torch.randint(100, (batch, 8), generator=generator)
        images = look[texts].sum(1) + torch.randn(batch, 64, generator=generator)
        mine = slice(rank * batch // size, (rank + 1) * batch // size)
        yield images[mine].to(device), texts[mine].to(device)


def train(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Train on this process's device; returns the last step's losses."""
    torch.manual_seed(0)
    student, teacher = ToyCLIP(16).to(device), ToyCLIP(24).to(device).eval().requires_grad_(False)
    loss = CLIPKDLoss({"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}, student_dim=16, teacher_dim=24).to(device)
    optimizer = torch.optim.AdamW([*student.parameters(), *loss.parameters()], lr=args.lr)
    autocast = torch.autocast(device.type, AMP[args.amp], enabled=args.amp != "off")
    # Below the default of 65536, with which these toys' first gradients overflow and their steps are left out.
    scaler = torch.amp.GradScaler(device.type, init_scale=1024, enabled=args.amp == "fp16")
    saved = {"student": student, "loss": loss, "optimizer": optimizer, "scaler": scaler}
    start = load(saved, args.checkpoint)

    task: nn.Module = Task(student, loss)
    if args.compile:
        task.compile(backend=args.compile)  # in place: names in checkpoints stay what they are
    if dist.is_initialized():
        task = DistributedDataParallel(task)

    losses: dict[str, Tensor] = {}
    for images, texts in pairs(range(start, args.steps), args.batch, device):
        with autocast:
            losses = task(images, texts, *teacher(images, texts))
        optimizer.zero_grad()
        scaler.scale(sum(losses.values(), torch.zeros(()))).backward()  # outside autocast
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(task.parameters(), args.clip)
        scaler.step(optimizer)
        scaler.update()
        loss.clamp_scales()  # learnable temperatures stay at most 100

    save(saved, args.checkpoint, args.steps)
    return {name: value.item() for name, value in losses.items()}


def save(saved: dict, file: Path | None, step: int) -> None:
    """Write the states of all that is trained; rank 0 does it."""
    if file and (not dist.is_initialized() or dist.get_rank() == 0):
        torch.save({"step": step} | {name: each.state_dict() for name, each in saved.items()}, file)


def load(saved: dict, file: Path | None) -> int:
    """Put back what ``save`` wrote, where it did; returns the number of steps done."""
    if not (file and file.exists()):
        return 0
    states = torch.load(file, map_location="cpu", weights_only=True)
    for name, each in saved.items():
        each.load_state_dict(states[name])
    return states["step"]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Distil a toy CLIP in a plain loop.")
    parser.add_argument("--steps", type=int, default=20, help="steps in all, those before a checkpoint included")
    parser.add_argument("--batch", type=int, default=32, help="pairs of a step, over all processes")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--clip", type=float, default=1.0, help="greatest norm of all gradients together")
    parser.add_argument("--amp", choices=AMP, default="off", help="fp16 brings a GradScaler")
    parser.add_argument("--compile", metavar="BACKEND", help="torch.compile student and loss: inductor, aot_eager, ...")
    parser.add_argument("--checkpoint", type=Path, help="read where it exists, written at the end")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """One process of torchrun's, or the only one."""
    args = parse(argv)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if cuda else "gloo")
    losses = train(args, device)
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(f"after {args.steps} steps:", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
    if dist.is_initialized():
        dist.barrier()  # all leave together: else gloo may abort at the exit
        dist.destroy_process_group()
    return losses


if __name__ == "__main__":
    main()
