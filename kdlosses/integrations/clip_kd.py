"""The released CLIP-KD trainer's loss, with its constructor, call, order of terms and parameter names.

For that trainer and for forks of open_clip that have taken its ``KDClipLoss``: change the import and keep the rest.
What differs from the released class, and what to add for several processes: docs/integrations/clip_kd.md.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from kdlosses.backends.contract import Backend
from kdlosses.checks import check_weight
from kdlosses.losses.clip_kd import CLIPKDLoss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# The attribute of args that weighs a term, in the order in which the terms are returned, after the task's.
WEIGHTS = {
    "crd": "alpha_ckd_loss",
    "icl": "alpha_icl_loss",
    "cross_kd": "alpha_cross_kd_loss",
    "fd": "alpha_fd_loss",
    "gd": "alpha_gd_loss",
    "afd": "alpha_afd_loss",
}
_LAYERS = (
    "cross_logit_scale",
    "fusion_logit_scale",
    *(
        f"{side}_{layer}.{kind}"
        for side in ("visual", "text")
        for layer in ("proj", "fusion_proj")
        for kind in ("weight", "bias")
    ),
)

_log = logging.getLogger("kdlosses")


class KDClipLoss(CLIPKDLoss):
    """`CLIPKDLoss` as the released trainer makes and calls it: weights and widths from ``args``, seven terms back.

    ``L = task + a_ckd CRD + a_icl ICL + a_cross_kd crossKD + a_fd FD + a_gd GD + a_afd AFD``, the weights being
    ``args.alpha_ckd_loss`` and so on. A term of weight zero is not computed and owns no parameters.

    Args:
        args: has the six ``alpha_*_loss``, ``s_embed_dim`` and ``t_embed_dim``.
        local_loss: ignored: each process always computes its own rows against all keys. Rank 0 logs a warning.
        gather_with_grad: ignored: gradients are always those of the whole batch. Rank 0 logs a warning where the
            released class's would have been others.
        cache_labels: ignored: no labels are kept.
        rank: of this process.
        world_size: how many processes share the batch; must be the size of ``group``.
        use_horovod: refused.
        variant: ``"released"``, the default, for the released class's numbers; ``"paper"`` for the published formulas,
            whose GD needs another weight.
        backend: see `DistillLoss`.
        group: see `DistillLoss`.

    Raises:
        ValueError: for an attribute that ``args`` lacks, a bad weight or width, Horovod, widths that differ with the
            released AFD, or the released GD weight with the paper's GD.

    Gradient:
        The student and the loss's own parameters; the teacher receives none.

    Source:
        CLIP-KD (arXiv 2307.12732) and its released code.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from kdlosses.integrations.clip_kd import WEIGHTS, KDClipLoss
        >>> args = SimpleNamespace(**dict.fromkeys(WEIGHTS.values(), 0.0), s_embed_dim=16, t_embed_dim=32)
        >>> args.alpha_ckd_loss = 1.0
        >>> _ = torch.manual_seed(0)
        >>> student, teacher = torch.randn(2, 8, 16), torch.randn(2, 8, 32)
        >>> task, ckd, icl, cross_kd, fd, gd, afd = KDClipLoss(args)(*student, 14.3, *teacher, 100.0)
        >>> ckd > 0, fd
        (tensor(True), tensor(0.))
    """

    def __init__(
        self,
        args: Any,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
        *,
        variant: str = "released",
        backend: str | Backend = "auto",
        group: str | ProcessGroup | None = "auto",
    ) -> None:
        if use_horovod:
            raise ValueError(
                "use_horovod=True is not supported: the loss talks through torch.distributed; start the processes with "
                "torchrun, without --horovod"
            )
        weights = {"contrastive": 1.0} | {term: _weight(args, name) for term, name in WEIGHTS.items()}
        widths = {"student_dim": _read(args, "s_embed_dim"), "teacher_dim": _read(args, "t_embed_dim")}
        super().__init__(weights, variant=variant, backend=backend, group=group, **widths)
        self.world_size = world_size
        self.register_load_state_dict_pre_hook(_drop_unread)  # type: ignore[no-untyped-call]  # torch has no types for it
        if rank == 0:
            _say_what_is_ignored(local_loss, world_size > 1 and not gather_with_grad)

    def forward(  # type: ignore[override]  # the released class's arguments, and its terms as a tuple
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        t_image_features: Tensor,
        t_text_features: Tensor,
        t_logit_scale: float | Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute the loss of one batch of pairs; row i of every tensor is the same image-text pair.

        Args:
            image_features: ``[B, Ds]`` student image embeddings, any floating dtype, normalised or not.
            text_features: ``[B, Ds]`` student text embeddings.
            logit_scale: the student's 1/temperature, already exponentiated: a number or a tensor ``[]`` or ``[1]``.
            t_image_features: ``[B, Dt]`` teacher image embeddings; receive no gradient.
            t_text_features: ``[B, Dt]`` teacher text embeddings; receive no gradient.
            t_logit_scale: the teacher's 1/temperature; receives no gradient.

        Returns:
            The weighted terms task, ckd, icl, cross_kd, fd, gd, afd, 0-d tensors, float32 (float64 if any features
            are) whatever the autocast; zero where the weight is. Their sum is the loss.

        Raises:
            ValueError: as `DistillLoss`, and where ``world_size`` is not the number of processes.
        """
        self._check_world()
        terms = super().forward(
            image_features,
            text_features,
            logit_scale,
            t_image_features,
            t_text_features,
            t_logit_scale,
            output_dict=True,
        )
        zero = torch.zeros_like(terms["contrastive_loss"])
        return tuple(terms.get(f"{term}_loss", zero) for term in ("contrastive", *WEIGHTS))

    if TYPE_CHECKING:
        __call__ = forward  # type: ignore[assignment]  # as forward itself

    def _check_world(self) -> None:
        if self.group is None:
            return
        together = dist.is_available() and dist.is_initialized()
        size = dist.get_world_size(None if isinstance(self.group, str) else self.group) if together else 1
        if size != self.world_size:
            raise ValueError(
                f"KDClipLoss was built with world_size={self.world_size} but is called among {size} processes; pass "
                f"world_size={size}, or group=None to keep the loss within its process"
            )


def _read(args: Any, name: str) -> Any:
    if not hasattr(args, name):
        wanted = ", ".join([*WEIGHTS.values(), "s_embed_dim", "t_embed_dim"])
        raise ValueError(
            f"args has no {name}; KDClipLoss reads {wanted} from it: set args.{name}, a weight of 0 leaves its term out"
        )
    return getattr(args, name)


def _weight(args: Any, name: str) -> float:
    value: float = _read(args, name)
    check_weight(f"args.{name}", value)
    return value


def _say_what_is_ignored(local_loss: bool, partial_gradient: bool) -> None:
    if local_loss:
        _log.warning("KDClipLoss ignores local_loss: each process always computes its own rows against all keys")
    if partial_gradient:
        _log.warning(
            "KDClipLoss ignores gather_with_grad=False: gradients are always those of the whole batch, where the "
            "released class gives the student 1/world_size of them; a --grad-clip-norm tuned for that now clips more"
        )


def _drop_unread(module: KDClipLoss, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take out of a released state dict what terms of weight zero alone read: the released class has both scales."""
    own = {name for name, _ in module.named_parameters()}
    for name in _LAYERS:
        if name not in own:
            state.pop(prefix + name, None)
