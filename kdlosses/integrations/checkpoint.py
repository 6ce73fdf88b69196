"""A loss's own parameters in a file of their own, beside a student that knows nothing of them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

try:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save
except ImportError as missing:
    raise ImportError(
        "kdlosses.integrations.checkpoint needs safetensors: pip install '.[hugging-face]' in a checkout of kdlosses"
    ) from missing

from kdlosses.integrations.verify import damage_in, not_finite, with_checksums, without_numbers

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
        metadata = {"format": "pt", "loss": type(loss).__name__}
        path.write_bytes(with_checksums(save(state, metadata=metadata)))
    else:
        path.unlink(missing_ok=True)  # another loss's, of a run before


def load_loss(loss: nn.Module, folder: str | Path) -> None:
    """Read into ``loss`` what `save_loss` wrote.

    Args:
        loss: built with the same terms and widths as the one that was saved.
        folder: where `save_loss` wrote it.

    Raises:
        ValueError: where there is no such file, where it is damaged or holds values that are not finite, and where it
            holds another loss's parameters.

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
    state = _read(path)
    found, needed = _shapes(state), _shapes(wanted)
    if found != needed:
        raise ValueError(
            f"{path} holds {found} where {type(loss).__name__} has {needed or 'none'}; build the loss with the terms "
            "and widths that it had when the file was written"
        )
    loss.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        damage = damage_in(path)
        state = {} if damage else load_file(path)
    except (OSError, SafetensorError) as error:
        damage = f"it cannot be read ({' '.join(str(error).split())})"
    if damage:
        raise ValueError(f"{path} is damaged: {damage}; copy it again, or resume from another checkpoint")
    wrong = without_numbers(state.items())
    if wrong:
        raise ValueError(
            f"{path} holds {not_finite(wrong)}, so the loss cannot go on from there; resume from an earlier checkpoint"
        )
    return state


def _shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in sorted(state.items())}
