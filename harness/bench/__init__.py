"""Measurements of the losses and of training; every one of their programs begins by importing this."""

import warnings

# Losses alone are measured without an optimizer. By its words: the category's module would import torch.
warnings.filterwarnings("ignore", r".* has parameters of its own that", UserWarning)
