"""Checks of a machine and its packages: what `clipkd doctor` shows.

torch is imported in the processes of the checks only, so that an installation that cannot import it is examined too.
"""
