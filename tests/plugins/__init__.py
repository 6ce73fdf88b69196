"""What the whole test suite promises, as plugins of pytest."""
