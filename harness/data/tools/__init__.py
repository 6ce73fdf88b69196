"""Tools for data sets on disk: check them, convert them."""
