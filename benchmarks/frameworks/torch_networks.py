"""DNN, DPG and MI-DPG in PyTorch: as people write them, and as fast as they get.

The grouped forms never build S (derivations 3.5).  Both forms of the product (weigh after or
before multiplying) and both layouts (rows or features first) are here, because which of them is
fastest depends on size and machine; the benchmark times all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from frameworks import Network, Outputs, Rows
from frameworks.packed_dpg import ASSUMED, PackedDPG

Params = Mapping[str, Tensor]


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x); torch's own is linear beyond 20."""
    return -functional.logsigmoid(-x)


class Lookup(Network):
    """What all networks share: the lookup of all fields in one table.

    By ``index_select``: its adjoint takes half the time of ``embedding``'s.  What a step reads is
    made here and not at the first step, where ``torch.compile`` would cut its graph.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
        offsets = model.embedding.offsets
        self.offsets_on = {device: torch.tensor(offsets, device=device) for device in devices}

    def embed(self, params: Params, rows: Rows) -> Tensor:
        """Return X (B, d_0), aware fields first."""
        ids = rows.codes + self.offsets_on[rows.codes.device.type]
        return params["embedding.table"].index_select(0, ids.view(-1)).view(len(ids), -1)


class DNN(Lookup):
    """Affine maps with ReLU between them."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        H = self.embed(params, rows)
        names = self.model.mlp.layer_names
        for name in names:
            H = torch.addmm(params[f"mlp.{name}.b"], H, params[f"mlp.{name}.W"])
            if name != names[-1]:
                H = torch.relu(H)
        return Outputs(H[:, 0])


class MaterialisedDPG(Lookup):
    """As people write it: build S = psi(Q), weigh W with it, multiply row by row."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        for option, value in ASSUMED.items():
            if getattr(model, option, value) != value:
                raise NotImplementedError(f"only {option} = {value!r} is written here.")

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training of MI-DPG, the regulariser."""
        model = self.model
        X = self.embed(params, rows)
        e, H = X[:, : model.dim_aware], X
        total = 0.0
        for name, layer in model.layers.items():
            Q = self.core(params, name, torch.cat([e, H], dim=1))
            if draws is not None and model.auxiliary_weights:
                total = total + self.information(params, name, e, Q.flatten(1), draws["partner"])
            f_r = layer.dim_in // layer.weighting.d_r
            f_c = layer.dim_out // layer.weighting.d_c
            S = Q.repeat_interleave(f_r, dim=1).repeat_interleave(f_c, dim=2)
            V = S * params[f"{name}.W"]
            H = torch.relu(torch.bmm(H[:, None, :], V)[:, 0] + params[f"{name}.b"])
        z = torch.addmm(params["head.b"], H, params["head.W"])[:, 0]
        is_regularised = draws is not None and bool(model.auxiliary_weights)
        return Outputs(z, {"mi": total / len(model.layers)} if is_regularised else {})

    def core(self, params: Params, name: str, U: Tensor) -> Tensor:
        """Return Q (B, d_r, d_c)."""
        weighting = self.model.layers[name].weighting
        d_r, d_c, d_k = weighting.d_r, weighting.d_c, weighting.d_k
        made = {
            generator: mlp(params, f"{name}.weighting.{generator}", U)
            for generator in weighting.generators
        }
        if "core_generator" in made:
            return weighting.gain * torch.sigmoid(made["core_generator"].view(-1, d_r, d_c))
        R = made.get("row_generator", params.get(f"{name}.weighting.R_share"))
        C = made.get("column_generator", params.get(f"{name}.weighting.C_share"))
        return weighting.gain * torch.sigmoid(R.view(-1, d_r, d_k) @ C.view(-1, d_k, d_c))

    def information(self, params: Params, name: str, e: Tensor, q: Tensor, partner: Any) -> Tensor:
        """Return the loss of one discriminator."""
        path = f"discriminators.{name}"
        t_pos = mlp(params, path, torch.cat([e, q], dim=1))
        t_neg = mlp(params, path, torch.cat([e[partner], q], dim=1))
        return (softplus(-t_pos) + softplus(t_neg)).mean()


def mlp(params: Params, path: str, x: Tensor) -> Tensor:
    """Affine, ReLU, affine, ... as far as there are layers under ``path``."""
    i = 1
    while True:
        x = torch.addmm(params[f"{path}.layer_{i}.b"], x, params[f"{path}.layer_{i}.W"])
        i += 1
        if f"{path}.layer_{i}.W" not in params:
            return x
        x = torch.relu(x)


class GroupedDPG(PackedDPG, Lookup):
    """Rows first: never builds S, one product with E_aw for all generators and discriminators."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training of MI-DPG, the regulariser."""
        X = self.embed(params, rows)
        e, H = X[:, : self.d_aw], X
        of_e = torch.addmm(params["aware.b"], e, params["aware.W"])
        parts = of_e.split(self.aware_widths, dim=1)
        from_q = []
        for part, name in zip(parts, self.layers, strict=False):
            made = torch.relu(torch.addmm(part, H, params[f"{name}.from_h"]))
            Q = self.core(params, name, made)
            if draws is not None and self.has_mi:
                from_q.append(Q.flatten(1) @ params[f"{name}.from_q"])
            H = torch.relu(self.product(H, params[f"{name}.W"], Q, name) + params[f"{name}.b"])
        z = torch.addmm(params["head.b"], H, params["head.W"])[:, 0]
        if not from_q:
            return Outputs(z)
        return Outputs(z, {"mi": self.information(params, parts[-1], from_q, draws["partner"])})

    def core(self, params: Params, name: str, hidden: Tensor) -> Tensor:
        """Return Q (B, d_r, d_c) from the hidden values of all generators of the layer."""
        weighting, path = self.layers[name].weighting, f"{name}.weighting"
        generators = self.generators[name]
        made = {
            generator: torch.addmm(
                params[f"{path}.{generator}.layer_2.b"],
                part,
                params[f"{path}.{generator}.layer_2.W"],
            )
            for generator, part in zip(
                generators, hidden.chunk(len(generators), dim=1), strict=True
            )
        }
        if "core_generator" in made:
            P = made["core_generator"].view(-1, weighting.d_r, weighting.d_c)
        else:
            R = made.get("row_generator", params.get(f"{path}.R_share"))
            C = made.get("column_generator", params.get(f"{path}.C_share"))
            R = R.view(-1, weighting.d_r, weighting.d_k)
            C = C.view(-1, weighting.d_k, weighting.d_c)
            P = R * C if weighting.d_k == 1 else R @ C
        Q = torch.sigmoid(P)
        return Q if weighting.gain == 1.0 else weighting.gain * Q

    def product(self, H: Tensor, W: Tensor, Q: Tensor, name: str) -> Tensor:
        """Return A_bj = sum_i S_b,ij W_ij H_bi, (B, d_n)."""
        n_rows, d_r, d_c = Q.shape
        d_m, d_n = W.shape
        if (d_r, d_c) == (d_m, d_n):  # nothing is copied, so S is Q
            return torch.bmm(H[:, None, :], Q * W)[:, 0]
        if self.weighs_first(name):
            G = Q.permute(2, 0, 1).contiguous()[..., None] * H.view(n_rows, d_r, -1)
            W_c = W.view(d_m, d_c, -1).transpose(0, 1)
            A = torch.bmm(G.view(d_c, n_rows, d_m), W_c)
            return A.transpose(0, 1).reshape(n_rows, d_n)
        Z = torch.bmm(H.view(n_rows, d_r, -1).transpose(0, 1), W.view(d_r, -1, d_n))
        weighted = Z.view(d_r, n_rows, d_c, -1) * Q.transpose(0, 1)[..., None]
        return weighted.sum(0).view(n_rows, d_n)

    def information(self, params: Params, of_e: Tensor, from_q: list, partner: Any) -> Tensor:
        """Return the mean loss of all discriminators, whose hidden values stand side by side."""
        of_q = torch.cat(from_q, dim=1)
        both = torch.stack([of_e, functional.embedding(partner, of_e)]) + of_q
        t = (torch.relu(both) * params["disc.w"]).unflatten(2, (len(from_q), -1)).sum(3)
        t_pos, t_neg = (t + params["disc.b"]).unbind(0)
        return (softplus(-t_pos) + softplus(t_neg)).mean()


class RowGroupedDPG(GroupedDPG):
    """Multiply, then weigh, in every layer."""

    form = "row"


class ColumnGroupedDPG(GroupedDPG):
    """Weigh, then multiply, in every layer."""

    form = "column"


class FeaturesFirstDPG(PackedDPG, Lookup):
    """As ``GroupedDPG`` with the rows along the last axis: long contiguous rows of samples."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training of MI-DPG, the regulariser."""
        H = self.embed(params, rows).t().contiguous()
        of_e = torch.addmm(params["aware.b"][:, None], params["aware.W"].t(), H[: self.d_aw])
        parts = of_e.split(self.aware_widths)
        from_q = []
        for part, name in zip(parts, self.layers, strict=False):
            made = torch.relu(torch.addmm(part, params[f"{name}.from_h"].t(), H))
            Q = self.core(params, name, made)
            if draws is not None and self.has_mi:
                from_q.append(params[f"{name}.from_q"].t() @ Q.flatten(0, 1))
            A = self.product(H, params[f"{name}.W"], Q, name)
            H = torch.relu(A + params[f"{name}.b"][:, None])
        z = torch.addmm(params["head.b"][:, None], params["head.W"].t(), H)[0]
        if not from_q:
            return Outputs(z)
        return Outputs(z, {"mi": self.information(params, parts[-1], from_q, draws["partner"])})

    def core(self, params: Params, name: str, hidden: Tensor) -> Tensor:
        """Return Q (d_r, d_c, B)."""
        weighting, path = self.layers[name].weighting, f"{name}.weighting"
        d_r, d_c, d_k, n_rows = weighting.d_r, weighting.d_c, weighting.d_k, hidden.shape[1]
        generators = self.generators[name]
        made = {
            generator: torch.addmm(
                params[f"{path}.{generator}.layer_2.b"][:, None],
                params[f"{path}.{generator}.layer_2.W"].t(),
                part,
            )
            for generator, part in zip(generators, hidden.chunk(len(generators)), strict=True)
        }
        if "core_generator" in made:
            P = made["core_generator"].view(d_r, d_c, n_rows)
        else:
            R = made.get("row_generator", params.get(f"{path}.R_share")).view(d_r, 1, d_k, -1)
            C = made.get("column_generator", params.get(f"{path}.C_share")).view(1, d_k, d_c, -1)
            P = (R * C.transpose(1, 2)).sum(2) if d_k > 1 else R * C.view(1, d_c, 1, -1)
            P = P.view(d_r, d_c, n_rows)
        Q = torch.sigmoid(P)
        return Q if weighting.gain == 1.0 else weighting.gain * Q

    def product(self, H: Tensor, W: Tensor, Q: Tensor, name: str) -> Tensor:
        """Return A (d_n, B)."""
        d_r, d_c, n_rows = Q.shape
        d_m, d_n = W.shape
        if self.weighs_first(name):
            G = Q.transpose(0, 1).contiguous()[:, :, None] * H.view(d_r, -1, n_rows)
            W_c = W.view(d_m, d_c, -1).permute(1, 2, 0)
            return torch.bmm(W_c, G.view(d_c, d_m, n_rows)).view(d_n, n_rows)
        Z = torch.bmm(W.view(d_r, -1, d_n).transpose(1, 2), H.view(d_r, -1, n_rows))
        return (Z.view(d_r, d_c, -1, n_rows) * Q[:, :, None]).sum(0).view(d_n, n_rows)

    def information(self, params: Params, of_e: Tensor, from_q: list, partner: Any) -> Tensor:
        """Return the mean loss of all discriminators, whose hidden values stand below another."""
        of_q = torch.cat(from_q)
        both = torch.stack([of_e, of_e.index_select(1, partner)]) + of_q
        t = (torch.relu(both) * params["disc.w"][:, None]).unflatten(1, (len(from_q), -1)).sum(2)
        t_pos, t_neg = (t + params["disc.b"][:, None]).unbind(0)
        return (softplus(-t_pos) + softplus(t_neg)).mean()


class RowFeaturesFirstDPG(FeaturesFirstDPG):
    """Multiply, then weigh, in every layer."""

    form = "row"


class ColumnFeaturesFirstDPG(FeaturesFirstDPG):
    """Weigh, then multiply, in every layer."""

    form = "column"


DPG_FORMS: dict[str, type[Network]] = {
    "features-first row": RowFeaturesFirstDPG,
    "features-first column": ColumnFeaturesFirstDPG,
    "row": RowGroupedDPG,
    "column": ColumnGroupedDPG,
    "materialised": MaterialisedDPG,
}
NETWORKS: dict[str, dict[str, type[Network]]] = {
    "dnn": {"plain": DNN},
    "dpg": DPG_FORMS,
    "midpg": DPG_FORMS,
}
