"""Fused kernels, each beside its NumPy form: CUDA for a GPU, compiled loops for a CPU."""

from midpg_np.kernels.adam import adam_leaves, adam_rows, adam_step, adam_table, adam_tick
from midpg_np.kernels.cores import bounded, bounded_backward, core, core_backward
from midpg_np.kernels.dispatch import (
    CPU_KERNELS,
    ROWS_FOR_LOOPS,
    MissingNumbaError,
    check_cpu_kernels,
    compiled_loops,
    empty,
    fuses,
    loops_are_on,
    loops_around,
    room,
)
from midpg_np.kernels.elementwise import (
    bias_relu,
    bias_relu_backward,
    bias_relu_batch_first,
    bias_relu_batch_first_backward,
    relu,
    relu_backward,
    sum_samples,
)
from midpg_np.kernels.gates import gate, gate_backward
from midpg_np.kernels.grouped import product_by_group, product_by_group_backward, sum_by_group
from midpg_np.kernels.losses import cross_entropy, jensen_shannon, jensen_shannon_backward
from midpg_np.kernels.missed import sum_missed
from midpg_np.kernels.mixtures import give_candidates, mix, mix_backward, take_candidates
from midpg_np.kernels.modulated import modulated_product, modulated_product_backward
from midpg_np.kernels.pairs import pair_scores, pair_scores_backward
from midpg_np.kernels.pruning import prune, prune_backward
from midpg_np.kernels.rows import (
    give_samples,
    lookup,
    lookup_rows_backward,
    sum_by_id,
    take_samples,
)

__all__ = [
    "CPU_KERNELS",
    "ROWS_FOR_LOOPS",
    "MissingNumbaError",
    "adam_leaves",
    "adam_rows",
    "adam_step",
    "adam_table",
    "adam_tick",
    "bias_relu",
    "bias_relu_backward",
    "bias_relu_batch_first",
    "bias_relu_batch_first_backward",
    "bounded",
    "bounded_backward",
    "check_cpu_kernels",
    "compiled_loops",
    "core",
    "core_backward",
    "cross_entropy",
    "empty",
    "fuses",
    "gate",
    "gate_backward",
    "give_candidates",
    "give_samples",
    "jensen_shannon",
    "jensen_shannon_backward",
    "lookup",
    "lookup_rows_backward",
    "loops_are_on",
    "loops_around",
    "mix",
    "mix_backward",
    "modulated_product",
    "modulated_product_backward",
    "pair_scores",
    "pair_scores_backward",
    "product_by_group",
    "product_by_group_backward",
    "prune",
    "prune_backward",
    "relu",
    "relu_backward",
    "room",
    "sum_by_group",
    "sum_by_id",
    "sum_missed",
    "sum_samples",
    "take_candidates",
    "take_samples",
]
