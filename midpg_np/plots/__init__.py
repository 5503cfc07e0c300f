"""Figures, drawn with matplotlib (extra ``app``) without a window system.

Importing this package loads NumPy only; matplotlib, networkx and scikit-learn are imported when a
function needs them.
"""

from __future__ import annotations

from midpg_np.plots.calibration import plot_calibration
from midpg_np.plots.curves import plot_curves, plot_scenario_curves
from midpg_np.plots.errors import plot_error_map
from midpg_np.plots.gradient_report import plot_gradient_report
from midpg_np.plots.graph import plot_graph
from midpg_np.plots.rank import plot_rank
from midpg_np.plots.scatter import plot_scatter
from midpg_np.plots.show import show
from midpg_np.plots.similarity import plot_similarity
from midpg_np.plots.step_sizes import plot_step_sizes
from midpg_np.plots.style import STYLES, heat_map, new_figure, scenario_style
from midpg_np.plots.weighting import plot_weighting

__all__ = [
    "STYLES",
    "heat_map",
    "new_figure",
    "plot_calibration",
    "plot_curves",
    "plot_error_map",
    "plot_gradient_report",
    "plot_graph",
    "plot_rank",
    "plot_scatter",
    "plot_scenario_curves",
    "plot_similarity",
    "plot_step_sizes",
    "plot_weighting",
    "scenario_style",
    "show",
]
