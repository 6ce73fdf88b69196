"""Check what `clipkd train smoke` left: it trained, was measured, and stock open_clip loads its export."""

import json
import sys
from pathlib import Path

import open_clip
import torch


def main(run: Path) -> None:
    """Raise AssertionError at the first thing amiss."""
    summary = json.loads((run / "summary.json").read_text())
    values = [value for metrics in summary["metrics"].values() for value in metrics.values()]
    assert values, "no evaluation results"
    assert all(0 <= value <= 100 for value in values), f"metrics outside 0 to 100 percent: {summary['metrics']}"

    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0], f"the loss did not fall: {losses}"
    assert list((run / "checkpoints").glob("step-*.pt")), "no checkpoint"

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{run / 'export'}")
    tokens = open_clip.get_tokenizer(f"local-dir:{run / 'export'}")(["a caption"])
    assert torch.isfinite(model.encode_text(tokens)).all(), "the exported model gives NaN"
    print(f"smoke: loss {losses[0]:.3f} -> {losses[-1]:.3f}, {len(values)} metrics, export loads")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
