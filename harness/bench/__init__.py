"""Measurements of the losses and of training; every one of their programs begins by importing this."""

import warnings

from kdlosses import UntrainedParametersWarning

# Losses alone are measured without an optimizer; nor is the time to look for one any part of theirs.
warnings.filterwarnings("ignore", category=UntrainedParametersWarning)
