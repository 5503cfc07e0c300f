"""DNN in full (derivations 4)."""

from __future__ import annotations

from midpg_np.models.dnn import DNN
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss, write_mlp


def dnn(model: DNN, *, training: bool = True) -> Calculation:
    """Write out a step: X, then A_l and H_l layer by layer, the logit, the loss."""
    do = Sheet()
    X = write_embedding(do, model)
    z = write_mlp(do, "mlp", "mlp", model.mlp, X, eq="4a")
    write_loss(do, model, z)
    return finish(do, model)
