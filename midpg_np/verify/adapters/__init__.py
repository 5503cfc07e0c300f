"""What the adapters for PyTorch and JAX are made of; ``verify.torch`` and ``verify.jax`` use it."""
