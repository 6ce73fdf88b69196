"""Distil one CLIP of transformers into another, with transformers' Trainer.

    python examples/hugging_face.py --student STUDENT --teacher TEACHER --data FOLDER --out runs/distilled
    torchrun --nproc-per-node 8 examples/hugging_face.py ...        # the same on 8 GPUs; --batch-size is each one's

STUDENT and TEACHER are folders or names for `from_pretrained`: CLIPModel, SiglipModel, ChineseCLIPModel, each with its
own processor. FOLDER holds images and metadata.csv with the columns file_name and text. What is written to --out is a
plain model with its processor: `AutoModel.from_pretrained("runs/distilled")`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, Subset
from transformers import AutoConfig, AutoModel, AutoProcessor, TrainingArguments

from kdlosses import CLIPKDLoss
from kdlosses.integrations.hugging_face import CLIPDistillationTrainer
from kdlosses.integrations.model_adapters import embedding_width


class Pairs(Dataset):
    """The images of a folder with their texts."""

    def __init__(self, folder: Path) -> None:
        with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
            self.rows = [(folder / row["file_name"], row["text"]) for row in csv.DictReader(file)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        path, text = self.rows[index]
        return Image.open(path).convert("RGB"), text


class Collator:
    """A batch for the student, and under names that begin with teacher_ the same pairs as the teacher knows them."""

    def __init__(self, student: Any, student_length: int, teacher: Any, teacher_length: int) -> None:
        self.student, self.student_length = student, student_length
        self.teacher, self.teacher_length = teacher, teacher_length

    def __call__(self, pairs: list[tuple[Image.Image, str]]) -> dict[str, Any]:
        images, texts = map(list, zip(*pairs, strict=True))
        taught = processed(self.teacher, images, texts, self.teacher_length)
        return {
            **processed(self.student, images, texts, self.student_length),
            **{f"teacher_{name}": value for name, value in taught.items()},
        }


def processed(processor: Any, images: list[Image.Image], texts: list[str], length: int) -> dict[str, Any]:
    padding = {"padding": "max_length", "truncation": True, "max_length": length}  # SigLIP knows no other padding
    return dict(processor(images=images, text=texts, return_tensors="pt", **padding))


def main() -> None:
    options = parsed()
    teacher = AutoModel.from_pretrained(options.teacher)
    if options.from_scratch:
        student = AutoModel.from_config(AutoConfig.from_pretrained(options.student))
    else:
        student = AutoModel.from_pretrained(options.student)
    processors = [AutoProcessor.from_pretrained(name) for name in (options.student, options.teacher)]
    lengths = [model.config.text_config.max_position_embeddings for model in (student, teacher)]
    loss = CLIPKDLoss(
        {"contrastive": 1, "crd": 1, "fd": 2000, "icl": 1},
        student_dim=embedding_width(student),
        teacher_dim=embedding_width(teacher),
    )
    arguments = TrainingArguments(
        str(options.out),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        dataloader_drop_last=True,  # a smaller last batch has fewer negatives; processes would fill it up with pairs
        dataloader_num_workers=options.workers,
        num_train_epochs=options.epochs,
        learning_rate=options.lr,
        weight_decay=0.1,
        warmup_steps=options.warmup,
        lr_scheduler_type="cosine",
        bf16=options.bf16,
        use_cpu=options.cpu,
        ddp_backend="gloo" if options.cpu else None,
        logging_steps=options.log_every,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        report_to=options.report_to,
    )
    pairs = Pairs(options.data)
    # A full batch at least: smaller ones are left out of the evaluation too.
    held_out = max(len(pairs) // 20, arguments.eval_batch_size * arguments.world_size)
    trainer = CLIPDistillationTrainer(
        student,
        arguments,
        teacher=teacher,
        loss=loss,
        data_collator=Collator(processors[0], lengths[0], processors[1], lengths[1]),
        train_dataset=Subset(pairs, range(held_out, len(pairs))),
        eval_dataset=Subset(pairs, range(held_out)),
    )
    trainer.train(resume_from_checkpoint=options.resume)
    trainer.save_model(str(options.out))
    if trainer.is_world_process_zero():
        # Not the Trainer's processing_class, whose special tokens it would write into the configuration.
        processors[0].save_pretrained(options.out)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="folder or name of the student")
    parser.add_argument("--from-scratch", action="store_true", help="of the student take the configuration alone")
    parser.add_argument("--teacher", required=True, help="folder or name of the teacher")
    parser.add_argument("--data", required=True, type=Path, help="folder with images and metadata.csv")
    parser.add_argument("--out", required=True, type=Path, help="folder for checkpoints and the student")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs on each device; all of them are negatives")
    parser.add_argument("--epochs", type=float, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=1000, help="steps")
    parser.add_argument("--workers", type=int, default=4, help="processes that load data")
    parser.add_argument("--log-every", type=int, default=50, help="steps")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="needed for torchrun on CPUs")
    parser.add_argument("--report-to", default="none", help="tensorboard, wandb, ...")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
