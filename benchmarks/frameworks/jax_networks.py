"""DNN, DPG and MI-DPG in JAX: the grouped forms of ``torch_networks`` and the usual code.

XLA joins element-wise chains by itself, so a product that is weighed and summed needs no more than
to be written that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frameworks import Network, Outputs, Rows
from frameworks.packed_dpg import PackedDPG

Params = Mapping[str, Any]


class Lookup(Network):
    """What all networks share: the lookup of all fields in one table."""

    def embed(self, params: Params, rows: Rows) -> Any:
        """Return X (B, d_0), aware fields first."""
        ids = rows.codes + np.asarray(self.model.embedding.offsets, dtype=np.int32)
        return params["embedding.table"][ids].reshape(len(ids), -1)


class DNN(Lookup):
    """Affine maps with ReLU between them."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        H = self.embed(params, rows)
        names = self.model.mlp.layer_names
        for name in names:
            H = H @ params[f"mlp.{name}.W"] + params[f"mlp.{name}.b"]
            if name != names[-1]:
                H = jax.nn.relu(H)
        return Outputs(H[:, 0])


class GroupedDPG(PackedDPG, Lookup):
    """Rows first: never builds S, one product with E_aw for all generators and discriminators."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training of MI-DPG, the regulariser."""
        H = self.embed(params, rows)
        of_e = H[:, : self.d_aw] @ params["aware.W"] + params["aware.b"]
        parts = jnp.split(of_e, np.cumsum(self.aware_widths)[:-1], axis=1)
        from_q = []
        for part, name in zip(parts, self.layers, strict=False):
            made = jax.nn.relu(H @ params[f"{name}.from_h"] + part)
            Q = self.core(params, name, made)
            if draws is not None and self.has_mi:
                from_q.append(Q.reshape(len(Q), -1) @ params[f"{name}.from_q"])
            H = jax.nn.relu(self.product(H, params[f"{name}.W"], Q, name) + params[f"{name}.b"])
        z = (H @ params["head.W"] + params["head.b"])[:, 0]
        if not from_q:
            return Outputs(z)
        return Outputs(z, {"mi": self.information(params, parts[-1], from_q, draws["partner"])})

    def core(self, params: Params, name: str, hidden: Any) -> Any:
        """Return Q (B, d_r, d_c) from the hidden values of all generators of the layer."""
        weighting, path = self.layers[name].weighting, f"{name}.weighting"
        generators = self.generators[name]
        made = {
            generator: part @ params[f"{path}.{generator}.layer_2.W"]
            + params[f"{path}.{generator}.layer_2.b"]
            for generator, part in zip(
                generators, jnp.split(hidden, len(generators), axis=1), strict=True
            )
        }
        if "core_generator" in made:
            P = made["core_generator"].reshape(-1, weighting.d_r, weighting.d_c)
        else:
            R = made.get("row_generator", params.get(f"{path}.R_share"))
            C = made.get("column_generator", params.get(f"{path}.C_share"))
            R = R.reshape(-1, weighting.d_r, weighting.d_k)
            C = C.reshape(-1, weighting.d_k, weighting.d_c)
            P = R * C if weighting.d_k == 1 else R @ C
        return weighting.gain * jax.nn.sigmoid(P)

    def product(self, H: Any, W: Any, Q: Any, name: str) -> Any:
        """Return A_bj = sum_i S_b,ij W_ij H_bi, (B, d_n)."""
        n_rows, d_r, d_c = Q.shape
        d_m, d_n = W.shape
        if (d_r, d_c) == (d_m, d_n):  # nothing is copied, so S is Q
            return jnp.einsum("bij,bi->bj", Q * W, H)
        if self.weighs_first(name):
            G = Q.transpose(2, 0, 1)[..., None] * H.reshape(n_rows, d_r, -1)
            W_c = W.reshape(d_m, d_c, -1).transpose(1, 0, 2)
            A = jnp.matmul(G.reshape(d_c, n_rows, d_m), W_c)
            return A.transpose(1, 0, 2).reshape(n_rows, d_n)
        Z = jnp.matmul(H.reshape(n_rows, d_r, -1).transpose(1, 0, 2), W.reshape(d_r, -1, d_n))
        weighted = Q.transpose(1, 0, 2)[..., None] * Z.reshape(d_r, n_rows, d_c, -1)
        return weighted.sum(0).reshape(n_rows, d_n)

    def information(self, params: Params, of_e: Any, from_q: list[Any], partner: Any) -> Any:
        """Return the mean loss of all discriminators, whose hidden values stand side by side."""
        both = jnp.stack([of_e, of_e[partner]]) + jnp.concatenate(from_q, axis=1)
        scored = jax.nn.relu(both) * params["disc.w"]
        t = scored.reshape(2, len(of_e), len(from_q), -1).sum(3) + params["disc.b"]
        return (jax.nn.softplus(-t[0]) + jax.nn.softplus(t[1])).mean()


class MaterialisedDPG(GroupedDPG):
    """Builds S = psi(Q) and S * W."""

    def product(self, H: Any, W: Any, Q: Any, name: str) -> Any:
        """Return A = H (S * W) row by row."""
        f_r, f_c = W.shape[0] // Q.shape[1], W.shape[1] // Q.shape[2]
        S = jnp.repeat(jnp.repeat(Q, f_r, axis=1), f_c, axis=2)
        return jnp.einsum("bi,bij->bj", H, S * W)


class RowGroupedDPG(GroupedDPG):
    """Multiply, then weigh, in every layer."""

    form = "row"


class ColumnGroupedDPG(GroupedDPG):
    """Weigh, then multiply, in every layer."""

    form = "column"


class FeaturesFirstDPG(GroupedDPG):
    """As ``GroupedDPG`` with the rows along the last axis inside the product."""

    def product(self, H: Any, W: Any, Q: Any, name: str) -> Any:
        """Return A (B, d_n), through transposed copies."""
        n_rows, d_r, d_c = Q.shape
        d_m, d_n = W.shape
        if (d_r, d_c) == (d_m, d_n):
            return super().product(H, W, Q, name)
        H_t, Q_t = H.T.reshape(d_r, -1, n_rows), Q.transpose(1, 2, 0)
        if self.weighs_first(name):
            G = Q_t.transpose(1, 0, 2)[:, :, None] * H_t
            W_c = W.reshape(d_m, d_c, -1).transpose(1, 2, 0)
            return jnp.matmul(W_c, G.reshape(d_c, d_m, n_rows)).reshape(d_n, n_rows).T
        Z = jnp.matmul(W.reshape(d_r, -1, d_n).transpose(0, 2, 1), H_t)
        return (Q_t[:, :, None] * Z.reshape(d_r, d_c, -1, n_rows)).sum(0).reshape(d_n, n_rows).T


class RowFeaturesFirstDPG(FeaturesFirstDPG):
    """Multiply, then weigh, in every layer."""

    form = "row"


class ColumnFeaturesFirstDPG(FeaturesFirstDPG):
    """Weigh, then multiply, in every layer."""

    form = "column"


DPG_FORMS: dict[str, type[Network]] = {
    "row": RowGroupedDPG,
    "features-first row": RowFeaturesFirstDPG,
    "column": ColumnGroupedDPG,
    "features-first column": ColumnFeaturesFirstDPG,
    "materialised": MaterialisedDPG,
}
NETWORKS: dict[str, dict[str, type[Network]]] = {
    "dnn": {"plain": DNN},
    "dpg": DPG_FORMS,
    "midpg": DPG_FORMS,
}
