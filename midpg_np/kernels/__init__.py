"""Fused CUDA kernels, each beside its NumPy form; arrays of a GPU get the kernel (docs/gpu.md)."""

from midpg_np.kernels.adam import adam_rows, adam_step, adam_table
from midpg_np.kernels.cores import bounded, bounded_backward, core, core_backward
from midpg_np.kernels.launch import fuses
from midpg_np.kernels.losses import cross_entropy, jensen_shannon, jensen_shannon_backward
from midpg_np.kernels.modulated import (
    column_product,
    column_product_backward,
    row_product,
    row_product_backward,
)
from midpg_np.kernels.replay import adam_replay
from midpg_np.kernels.weighting import (
    scaled_weights,
    scaled_weights_backward,
    weighted_inputs,
    weighted_inputs_backward,
    weighted_sum,
    weighted_sum_backward,
)

__all__ = [
    "adam_replay",
    "adam_rows",
    "adam_step",
    "adam_table",
    "bounded",
    "bounded_backward",
    "column_product",
    "column_product_backward",
    "core",
    "core_backward",
    "cross_entropy",
    "fuses",
    "jensen_shannon",
    "jensen_shannon_backward",
    "row_product",
    "row_product_backward",
    "scaled_weights",
    "scaled_weights_backward",
    "weighted_inputs",
    "weighted_inputs_backward",
    "weighted_sum",
    "weighted_sum_backward",
]
