"""Forward smoke test: one image and one text through a model before any data is read."""

from __future__ import annotations

import torch

from harness.errors import UserError
from harness.models import LoadedModel
from harness.zoo.towers import hint

# Outputs that losses use; a SigLIP has a bias, which the sigmoid terms use.
_OUTPUTS = {"image_features", "text_features", "logit_scale", "logit_bias"}


@torch.no_grad()
def forward_smoke_test(loaded: LoadedModel, role: str) -> None:
    """Run a forward pass on a grey image and a short text, on the CPU, where index errors are readable.

    Args:
        loaded: the model, with its tokenizer.
        role: ``"student"`` or ``"teacher"``, the recipe's section.

    Raises:
        UserError: the forward pass fails, because the model's config contradicts itself.
    """
    training = loaded.model.training
    loaded.model.eval()
    try:
        image = torch.zeros(1, 3, loaded.image_size, loaded.image_size)
        outputs = loaded.model(image, loaded.tokenizer(["a photo of a cat"]))
        found = outputs["image_features"].shape[1], outputs["text_features"].shape[1]
    except (RuntimeError, IndexError, ValueError, AssertionError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        usual = "check its config: image_size against patch_size, context_length, vocab_size against the tokenizer"
        raise UserError(
            f"{role} {loaded.name} cannot embed one image and one text ({reason}); {hint(loaded.model) or usual}"
        ) from error
    finally:
        loaded.model.train(training)
    if others := sorted(set(outputs) - _OUTPUTS):
        raise UserError(
            f"{role} {loaded.name} is not a plain CLIP: besides embeddings it returns {', '.join(others)}, "
            "as open_clip's CoCa does, which no loss here trains; use a CLIP or a SigLIP"
        )
    if found != (loaded.embed_dim, loaded.embed_dim):
        raise UserError(
            f"{role} {loaded.name} returns widths {found} for image and text, but its embed_dim is {loaded.embed_dim}"
        )
