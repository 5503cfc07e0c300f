"""Comparing models fairly: the same rows, the same seeds, the same training."""
