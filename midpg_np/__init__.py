"""MI-DPG and its relatives for multi-scenario prediction, every gradient derived by hand.

Names are imported when they are first used, so ``import midpg_np`` loads NumPy and nothing heavier.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "midpg_np.backend": ("DeviceError", "get_xp", "scatter_add_rows", "to_device", "to_numpy"),
    "midpg_np.batch": ("Batch",),
    "midpg_np.checks": (
        "Case",
        "GradientMismatchError",
        "GradientReport",
        "check_directions",
        "check_gradients",
        "dense_gradients",
        "expect_close",
        "model_case",
        "perturbed",
    ),
    "midpg_np.data": (
        "DATASETS",
        "Dataset",
        "Encoder",
        "Schema",
        "Splits",
        "load_dataset",
        "load_table",
        "read_table",
    ),
    "midpg_np.estimator": ("MultiScenarioClassifier",),
    "midpg_np.losses": ("cross_entropy", "cross_entropy_backward"),
    "midpg_np.models": (
        *("APG", "DNN", "DPG", "MIDPG", "PLE", "STAR", "AdaSparse", "OptMSM", "PEPNet"),
        *("MODELS", "ModelOutput", "make_model"),
    ),
    "midpg_np.training.checkpoint": ("load_model", "save_model"),
    "midpg_np.training.config": ("TrainConfig",),
    "midpg_np.training.evaluate": ("evaluate", "predict_logits"),
    "midpg_np.training.loop": ("fit",),
    "midpg_np.training.run": ("RunResult", "write_run"),
    "midpg_np.verify.case": ("StepCase", "load_case", "make_case"),
    "midpg_np.verify.compare": ("DumpMismatchError", "compare"),
    "midpg_np.verify.diagnose": ("diagnose",),
    "midpg_np.verify.mistakes": ("MISTAKES",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'midpg_np' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
