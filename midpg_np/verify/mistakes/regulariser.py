"""Mistakes in the mutual-information regulariser (equations.md 3.9)."""

REGULARISER = ()
