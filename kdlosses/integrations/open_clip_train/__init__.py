"""open_clip's own trainer (open_clip_train 3.3) with a loss of kdlosses.

The command is ``python -m kdlosses.integrations.open_clip_train``.

``open_clip_train.main.main`` runs as it is. While it runs, four names in its module stand for other functions:

- ``parse_args`` takes --distill-model away from it, so that it never enters its own distillation, which knows one loss
  only, no gradient accumulation and no SigLIP;
- ``create_model_and_transforms`` makes the teacher as well, attaches the loss to the student (so that the optimizer,
  DDP and the checkpoints have its parameters) and has the student's training output carry the teacher's embeddings;
- ``create_loss`` returns the attached loss;
- ``pt_load`` makes a checkpoint to resume from fit the student with its loss.

A fifth, ``tar_file_expander`` in ``open_clip_train.data``, lets it read shards with the present webdataset.
"""
