"""Damaged inputs of every format, given to the real commands: each must end well and true, or in one sentence."""
