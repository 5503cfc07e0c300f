"""Mistakes in the weighting of a layer: factors, core, repeat, product (equations.md 3.9)."""

WEIGHTING = ()
