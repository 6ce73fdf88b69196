"""Model configs of this package, made known to open_clip at run time; open_clip's own files stay as they are."""

import open_clip

from harness.model_folders import shipped


def register() -> None:
    """Add the configs in ``assets/model_configs`` to open_clip's list; its factory then finds them by name.

    A later open_clip that has a model of the same name keeps its own files, but in this process the name means ours:
    recipes rely on it.
    """
    folder = shipped("model_configs")
    if folder not in open_clip.factory._MODEL_CONFIG_PATHS:
        open_clip.add_model_config(folder)
