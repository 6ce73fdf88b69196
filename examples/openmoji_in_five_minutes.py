"""Distil a CLIP on OpenMoji in five minutes on two CPU cores: the same small student without and with a teacher.

    pip install '.[harness]'                       # in a checkout of this repository
    python examples/openmoji_in_five_minutes.py    # trains both students for 400 steps each

docs/distil_in_five_minutes.md walks through this file.
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn

from harness.data.openmoji import build
from harness.models import LoadedModel, load_model
from kdlosses import CLIPKDLoss

# --- 1. data: images of emoji and their descriptions, as tensors in memory


def read_pairs(folder: Path, teacher: LoadedModel) -> tuple[Tensor, Tensor]:
    """Preprocessed images [N, 3, 64, 64] and tokens [N, 16] of all tar shards in a folder."""
    images, texts = [], []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member)
                assert file is not None
                if member.name.endswith(".png"):
                    images.append(teacher.preprocess(Image.open(file).convert("RGB")))
                else:
                    texts.append(file.read().decode().split("\n")[0])
    return torch.stack(images), teacher.tokenizer(texts)


# --- 2. models: the shipped teacher, and a student of open_clip's own class


def make_student() -> open_clip.CLIP:
    """A ViT of three layers and a text tower of two."""
    torch.manual_seed(0)
    return open_clip.CLIP(
        embed_dim=192,
        vision_cfg={"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16},
        text_cfg={"context_length": 16, "vocab_size": 4645, "width": 64, "heads": 2, "layers": 2},
    )


# --- 3. training: one loss takes the outputs of student and teacher


def train(student: nn.Module, teacher: nn.Module, weights: dict[str, float], pairs: tuple[Tensor, Tensor], steps: int):
    """Train a student in place with a weighted sum of losses."""
    torch.manual_seed(0)
    width = teacher.text_projection.shape[1]
    loss = CLIPKDLoss(weights, student_dim=192, teacher_dim=width)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for step in range(1, steps + 1):
        batch = torch.randint(len(pairs[0]), (256,))
        images, tokens = (each[batch] for each in pairs)
        with torch.no_grad():
            taught = teacher(images, tokens)
        terms = loss(*student(images, tokens), *taught, output_dict=True)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        schedule.step()
        loss.clamp_scales()
        if step % 50 == 0 or step == steps:
            print(f"step {step}: " + ", ".join(f"{name} {value.item():.3f}" for name, value in terms.items()))


# --- 4. evaluation: how often the right description is the first of all


@torch.no_grad()
def recall_at_1(model: nn.Module, pairs: tuple[Tensor, Tensor]) -> float:
    """Percent of images whose own description has the largest cosine."""
    images, texts, _ = model.eval()(*pairs)
    return 100 * ((images @ texts.T).argmax(1) == torch.arange(len(images))).float().mean().item()


def main() -> None:
    """Train both students and print their recall beside the teacher's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data/openmoji"))
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    torch.set_flush_denormal(True)

    build(args.data)
    teacher = load_model("shipped:openmoji-teacher")
    teacher.model.eval().requires_grad_(False).output_dict = False
    pairs = read_pairs(args.data / "train-student", teacher)
    held_out = read_pairs(args.data / "test-retrieval" / "test", teacher)
    print(f"{len(pairs[0])} pairs to train on, {len(held_out[0])} held out")

    found = {"teacher": recall_at_1(teacher.model, held_out)}
    alone: dict[str, float] = {"contrastive": 1}
    distilled: dict[str, float] = {"contrastive": 1, "crd": 1, "fd": 100, "icl": 1}
    for name, weights in {"student alone": alone, "student with CLIP-KD": distilled}.items():
        student = make_student()
        train(student, teacher.model, weights, pairs, args.steps)
        found[name] = recall_at_1(student, held_out)
    for name, recall in found.items():
        print(f"{name}: {recall:.1f} % of the descriptions found first")


if __name__ == "__main__":
    main()
