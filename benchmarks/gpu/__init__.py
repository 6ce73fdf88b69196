"""The steps of `benchmarks.gpu_day`, one module each; each runs in a process of its own."""

import warnings

from kdlosses import UntrainedParametersWarning

# Losses alone are measured without an optimizer.
warnings.filterwarnings("ignore", category=UntrainedParametersWarning)
