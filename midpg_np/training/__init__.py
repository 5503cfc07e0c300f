"""Training: optimiser, loop, metrics, checkpoints and run folders."""
