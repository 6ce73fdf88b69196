"""A loss's own parameters in a file of their own, beside a student that knows nothing of them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

try:
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    raise ImportError(
        "kdlosses.integrations.checkpoint needs safetensors: pip install '.[hugging-face]' in a checkout of kdlosses"
    ) from missing

FILE = "kd_loss.safetensors"


def save_loss(loss: nn.Module, folder: str | Path) -> None:
    """Write the parameters of ``loss`` to ``kd_loss.safetensors`` in ``folder``; a loss that has none leaves no file.

    Args:
        loss: any loss module.
        folder: an existing folder.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kdlosses import CRDLoss, ICLLoss
        >>> from kdlosses.integrations.checkpoint import save_loss
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_loss(ICLLoss(), folder)
        ...     print([file.name for file in Path(folder).iterdir()])
        ['kd_loss.safetensors']
    """
    state = {name: value.detach().contiguous() for name, value in loss.state_dict().items()}
    path = Path(folder) / FILE
    if state:
        save_file(state, path, metadata={"format": "pt", "loss": type(loss).__name__})
    else:
        path.unlink(missing_ok=True)  # another loss's, of a run before


def load_loss(loss: nn.Module, folder: str | Path) -> None:
    """Read into ``loss`` what `save_loss` wrote.

    Args:
        loss: built with the same terms and widths as the one that was saved.
        folder: where `save_loss` wrote it.

    Raises:
        ValueError: where there is no such file, or where it holds another loss's parameters.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from kdlosses import ICLLoss
        >>> from kdlosses.integrations.checkpoint import load_loss, save_loss
        >>> trained, fresh = ICLLoss(student_dim=4, teacher_dim=6), ICLLoss(student_dim=4, teacher_dim=6)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_loss(trained, folder)
        ...     load_loss(fresh, folder)
        >>> torch.equal(trained.visual_proj.weight, fresh.visual_proj.weight)
        True
    """
    wanted = loss.state_dict()
    path = Path(folder) / FILE
    if not path.is_file():
        if not wanted:
            return
        raise ValueError(
            f"{path} is missing, so the parameters of {type(loss).__name__} ({', '.join(wanted)}) cannot be restored; "
            "resume from a folder that this loss's training wrote"
        )
    state = load_file(path)
    found, needed = _shapes(state), _shapes(wanted)
    if found != needed:
        raise ValueError(
            f"{path} holds {found} where {type(loss).__name__} has {needed or 'none'}; build the loss with the terms "
            "and widths that it had when the file was written"
        )
    loss.load_state_dict(state)


def _shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in sorted(state.items())}
