"""Layers: pairs of a forward and a hand-written backward, with parameters but without state.

What a file is for, by section of the derivations:

- 2, used everywhere: ``initial``, ``embedding`` (gradients by row: ``row_gradient``), ``mlp``,
  ``mixture``, ``groups`` and ``scenario_mlp`` (weights by scenario).
- 3, MI-DPG: ``dwm`` generates the factors of a core, ``core`` puts it together; ``repeat``,
  ``modulated`` and ``modulated_layer`` weigh with it; ``mir``, ``discriminator``, ``negatives``
  and ``expansion`` are the regulariser.
- 5, PLE: ``experts``, ``candidates``, ``expert_gates``, ``shared_gate``; a level is ``extraction``.
- 6, STAR: ``partitioned_norm``, ``star_mlp``, ``auxiliary_network``.
- 7, PEPNet: ``gate``, ``blocks``, ``gated_tower``, ``fields``.
- 8, AdaSparse: ``pruner``, ``pruned_layer``, ``sparsity``, ``schedule``.
- 9, APG: ``low_rank``, ``low_rank_layer``.
- 10, OptMSM: ``affine_set``, ``shared_embeddings``, ``orthogonality``, ``hypernetwork``,
  ``code_affine``, ``generated_tower``.
"""
