"""The losses inside transformers' Trainer, and inside loops of one's own with accelerate.

The Trainer knows one model. While it trains, the loss is a part of that model (``kd_loss``), so that the optimizer, DDP
and gradient clipping take its parameters for the student's, and it is computed by a hook on the student's forward,
so within DDP's: only there does DDP with ``find_unused_parameters``, the Trainer's default, see which parameters a
loss reads. Before and after, and in every file, the student is a plain model again.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

try:
    import accelerate  # noqa: F401 - the Trainer cannot be made without
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import EvalLoopOutput
except ImportError as missing:
    raise ImportError(
        "kdlosses.integrations.hugging_face needs transformers and accelerate: "
        "pip install '.[hugging-face]' in a checkout of kdlosses"
    ) from missing

from kdlosses.integrations.attach import without_loss
from kdlosses.integrations.checkpoint import load_loss, save_loss
from kdlosses.integrations.distillation_step import PREFIX, check_unmasked, distillation_loss, frozen, teacher_features
from kdlosses.integrations.forward_hook import AttachedLoss
from kdlosses.integrations.hugging_face_limits import refuse_unsupported
from kdlosses.integrations.model_adapters import arguments_for, embedding_width, names_taken
from kdlosses.integrations.running_means import RunningMeans
from kdlosses.losses.clip_kd import CLIPKDLoss
from kdlosses.parameters import parameter_report
from kdlosses.requests import add_up

__all__ = ["CLIPDistillationTrainer", "distillation_loss", "load_loss", "save_loss"]


class CLIPDistillationTrainer(Trainer):
    """Subclass of transformers' Trainer with a teacher: trains ``model`` on the sum of the loss's terms.

    ``loss = sum_t weights[t] * L_t(student(batch), teacher(batch))``; everything else is the Trainer's.

    Args:
        model: the student: ``CLIPModel``, ``SiglipModel``, ``ChineseCLIPModel``, or an open_clip model.
        args: the Trainer's.
        teacher: likewise, of any width; put into ``eval()``, frozen and moved to the Trainer's device. Batch entries
            whose names begin with ``teacher_`` are for it (`kdlosses.integrations.distillation_step.teacher_batch`).
            None for a loss that reads no teacher.
        loss: any `kdlosses.DistillLoss`; the paper's CLIP-KD for both models' widths by default. With ``model_init``
            every new student begins with a copy of it.
        kwargs: all other arguments of ``transformers.Trainer``.

    Raises:
        ValueError: for what cannot work: several teachers, or the student as its own; ``compute_loss_func`` or label
            smoothing (the loss is ``loss``), MFD, DataParallel, FSDP, DeepSpeed, processes that the Trainer does not
            keep equal, or an optimizer that does not hold the loss's parameters.

    Logs, under the Trainer's names: ``loss`` and every ``<term>_loss``, means over the logging window;
    ``eval_<term>_loss`` beside ``eval_loss``.

    Example:
        >>> import tempfile
        >>> from transformers import CLIPConfig, CLIPModel, TrainingArguments
        >>> from kdlosses.integrations.hugging_face import CLIPDistillationTrainer
        >>> small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        >>> def model(width):
        ...     vision = {**small, "image_size": 8, "patch_size": 4}
        ...     text = {**small, "vocab_size": 9, "bos_token_id": 7, "eos_token_id": 8}
        ...     return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     args = TrainingArguments(folder, use_cpu=True, report_to=[])
        ...     trainer = CLIPDistillationTrainer(model(4), args, teacher=model(6))
        >>> trainer.loss
        CLIPKDLoss(
          1 contrastive + 1 crd + 2000 fd + 1 icl, variant='paper', backend='auto'
          (visual_proj): Linear(in_features=4, out_features=6, bias=True)
          (text_proj): Linear(in_features=4, out_features=6, bias=True)
        )
    """

    loss_is_scaled_for_ga = False  # a mean over each micro batch; the Trainer divides by their number

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        teacher: nn.Module | None = None,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        self.teacher, self._given_loss = teacher, loss
        self._part = AttachedLoss()
        self._window, self._evaluated = RunningMeans(), RunningMeans()
        if loss is not None:
            self.loss: nn.Module = loss
        super().__init__(model, args, **kwargs)
        refuse_unsupported(self)
        # A forward may take **kwargs, but no student takes num_items_in_batch, which would rescale gradients.
        self.model_accepts_loss_kwargs = False
        if teacher is not None:
            frozen(teacher, self._student).to(self.args.device)
        if not hasattr(self, "loss"):  # neither given nor made by call_model_init
            self.loss = self._new_loss(self._student)
        check_unmasked(self.loss)
        self.loss.to(self.args.device)
        self.add_callback(_ClampScales(self))

    @property
    def _student(self) -> nn.Module:
        assert isinstance(self.model, nn.Module), "the Trainer refuses to be made without a model"
        return self.model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; the loss is a part of the student until it returns."""
        with self._attached():
            return super().train(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's, with the mean of every term among the metrics."""
        self._evaluated = RunningMeans()
        with self._attached():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        means = self._evaluated.take()
        if not means:
            warnings.warn(
                f"{metric_key_prefix}: there was no batch, so there is no loss; with dataloader_drop_last fewer pairs "
                "than per_device_eval_batch_size on each process give none",
                stacklevel=2,
            )
        named = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return output._replace(metrics=(output.metrics or {}) | named)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """The sum of the terms for one micro batch of all processes; ``num_items_in_batch`` is of no use here."""
        with self.accelerator.autocast():
            self._part.hook.teacher = teacher_features(self.teacher, inputs, model)
        try:
            arguments, keywords = arguments_for(model, inputs)
            with self._attached():
                outputs = model(*arguments, **keywords)
        finally:
            self._part.hook.teacher = None
        if self.is_in_train and model.training:
            self._window.add(outputs["terms"], weight=1 / self.current_gradient_accumulation_steps)
        total = add_up(outputs["terms"].values())
        return (total, outputs) if return_outputs else total

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Any, Any]:
        """The loss of one batch, the student's image and text features as predictions, and the batch's labels.

        The labels are the entries that ``args.label_names`` names, else the number of each row in its batch.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        self._count_evaluated(outputs["terms"])
        if prediction_loss_only:
            return loss, None, None
        features = outputs["features"]["image_features"], outputs["features"]["text_features"]
        labels = tuple(inputs[name] for name in self.label_names if name in inputs)
        if not labels:
            labels = (torch.arange(len(features[0]), device=features[0].device),)
        return loss, features, labels[0] if len(labels) == 1 else labels

    def _count_evaluated(self, terms: dict[str, Tensor]) -> None:
        # As the Trainer counts the loss: once for each row, without the rows that fill up the processes' last batch.
        rows = torch.stack(list(terms.values())).repeat(self.args.eval_batch_size, 1)
        rows = self.accelerator.gather_for_metrics(rows)
        self._evaluated.add(dict(zip(terms, rows.mean(0), strict=True)), weight=len(rows))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's, with the mean of every term since the last time beside the loss's."""
        if "loss" in logs:
            logs.update(self._window.take(partial(self.accelerator.reduce, reduction="mean")))
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the Trainer's; one that was passed in must hold the loss's parameters."""
        optimizer = super().create_optimizer(*args, **kwargs)
        report = parameter_report(self.loss, optimizer)
        if not report.ok:
            raise ValueError(report.message)
        return optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """As the Trainer's, without logit scales, the student's too: decay would pull every temperature to 1."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As the Trainer's: a new student, and with it a new loss."""
        attached = self._part.detach()
        model = super().call_model_init(trial)
        self.loss = self._new_loss(model).to(self.args.device)
        if attached:
            self._part.attach(model, self.loss)
        return model

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        with self._part.detached():
            super()._save(output_dir, None if state_dict is None else without_loss(state_dict))
        if self.args.should_save:
            save_loss(self.loss, output_dir or str(self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with self._part.detached():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_loss(self.loss, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        with self._part.detached():
            super()._load_best_model()
        load_loss(self.loss, str(self.state.best_model_checkpoint))

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            wanted = names_taken(self._student)
            if self.teacher is not None:
                taught = names_taken(self.teacher)
                wanted |= taught | {PREFIX + name for name in taught}
            columns: Any = self._signature_columns  # the list that the Trainer has just made
            columns += sorted(wanted - set(columns))

    def _new_loss(self, model: nn.Module) -> nn.Module:
        if self._given_loss is not None:
            return copy.deepcopy(self._given_loss)
        if self.teacher is None:
            raise ValueError("CLIPDistillationTrainer needs a teacher, or a loss that reads none, such as CLIPLoss()")
        return CLIPKDLoss(student_dim=embedding_width(model), teacher_dim=embedding_width(self.teacher))

    def _attached(self) -> AbstractContextManager[None]:
        """The loss in the student; it may be there already."""
        return self._part.attached(self._student, self.loss)


class _ClampScales(TrainerCallback):
    """Keeps the loss's learnable scales in range, after every step of the optimizer."""

    def __init__(self, trainer: CLIPDistillationTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Called by the Trainer between the optimizer's step and the next."""
        loss: Any = self.trainer.loss
        loss.clamp_scales()
