"""PLE, STAR, PEPNet, AdaSparse, APG and OptMSM in PyTorch, for the default options.

Written from derivations 5 to 10 for speed on small batches: as few and as large products as the
equations allow, and nothing formed that the loss does not read.  Where there are several sensible
ways, all are here as forms, because which of them is fastest depends on sizes and machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from frameworks import Network, Outputs, Rows
from frameworks.packed_relatives import (
    PackedAdaSparse,
    PackedAPG,
    PackedOptMSM,
    PackedPEPNet,
    PackedPLE,
    PackedSTAR,
)
from frameworks.torch_networks import Lookup
from frameworks.torch_routing import AFFINE_FORMS, Routing, own_dot, route

Params = Mapping[str, Tensor]


class Routed(Lookup):
    """Sorts the rows by scenario before the lookup; ``form`` says how a row meets its weights."""

    form = "grouped"

    def sorted_rows(self, params: Params, rows: Rows) -> tuple[Tensor, Routing]:
        """Return X (B, d_0), sorted, and the routing."""
        dtype = params["embedding.table"].dtype
        routing = route(rows.scenario, self.model.n_scenarios, dtype)
        return self.embed(params, rows._replace(codes=rows.codes[routing.order])), routing

    def affine(self, H: Tensor, W: Tensor, b: Tensor, routing: Routing) -> Tensor:
        """Multiply each row with the weights of its scenario."""
        return AFFINE_FORMS[self.form](H, W, b, routing)


class PLE(PackedPLE, Routed):
    """All experts of level 1 by one product, both mixtures of a row by another.

    Its own gate is spread over all experts for that, with zeros elsewhere.
    """

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        X, routing = self.sorted_rows(params, rows)
        G, G_s = self.level_1(params, X, routing)
        E_k = self.affine(G, params["own.W"], params["own.b"], routing)
        E_s = torch.addmm(params["level_2.b"], G_s, params["level_2.W"])
        w = self.own_gate(torch.addmm(params["gates_2.b"], G, params["gates_2.W"]), routing)
        H = self.mix(w[:, None], torch.relu_(torch.stack([E_k, E_s], dim=1)))[:, 0]
        *hidden, last = [(params[f"{path}.W"], params[f"{path}.b"]) for path in self.tower]
        for layer in hidden:
            H = torch.relu_(self.affine(H, *layer, routing))
        return Outputs(routing.restore(own_dot(H, *last, routing)))

    def level_1(self, params: Params, X: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        """Return the own and the shared stream of each row, (B, q)."""
        n = self.model.n_scenarios
        S = torch.relu_(torch.addmm(params["experts.b"], X, params["experts.W"]))
        S = S.view(len(X), n + 1, -1)
        alpha = torch.addmm(params["gates.b"], X, params["gates.W"])
        alpha_k, alpha_s = alpha.split([2 * n, n + 1], dim=1)
        w_k, w_s = self.own_gate(alpha_k, routing), torch.softmax(alpha_s, dim=1)
        spread = torch.cat([routing.is_of.t() * w_k[:, :1], w_k[:, 1:]], dim=1)
        G, G_s = self.mix(torch.stack([spread, w_s], dim=1), S).unbind(1)
        return G, G_s

    def own_gate(self, alpha: Tensor, routing: Routing) -> Tensor:
        """Return each row's weights (B, 2) from the logits (B, D 2) of all gates."""
        own = routing.scenario[:, None, None].expand(-1, 1, 2)
        return torch.softmax(alpha.unflatten(1, (-1, 2)).gather(1, own)[:, 0], dim=1)

    def mix(self, w: Tensor, S: Tensor) -> Tensor:
        """(B, N, E) and (B, E, q) -> (B, N, q)."""
        return torch.bmm(w, S)


class SummedPLE(PLE):
    """Mixtures by multiplying and adding, which a compiler can join with what is around."""

    def mix(self, w: Tensor, S: Tensor) -> Tensor:
        """(B, N, E) and (B, E, q) -> (B, N, q)."""
        return (w[..., None] * S[:, None]).sum(2)


class DensePLE(SummedPLE):
    """All rows through the maps of all scenarios at every level."""

    form = "dense"


class SplitPLE(PLE):
    """Slices by split and cat."""

    form = "split"


class STAR(PackedSTAR, Routed):
    """Products of the weights for all scenarios, statistics by products with ``is_of``."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and the moving statistics."""
        X, routing = self.sorted_rows(params, rows)
        H, buffers = self.normalised(params, X, routing, is_training=draws is not None)
        n_layers = len(self.model.hidden) + 1
        for i in range(1, n_layers):
            H = torch.relu_(self.star_affine(H, self.star(params, i), routing))
        z = own_dot(H, *self.product(self.star(params, n_layers)), routing)
        z = z + self.auxiliary(params, X, routing)
        return Outputs(routing.restore(z), {}, buffers)

    def star(self, params: Params, i: int) -> list[Tensor]:
        """Return W, b, W_d, b_d of a layer."""
        parts = (("shared", "W"), ("shared", "b"), ("scenario", "W"), ("scenario", "b"))
        return [params[f"star.layer_{i}.{part}.{key}"] for part, key in parts]

    def product(self, leaves: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the weights of all scenarios."""
        W, b, W_d, b_d = leaves
        return W * W_d, b + b_d

    def star_affine(self, H: Tensor, leaves: list[Tensor], routing: Routing) -> Tensor:
        """Multiply each row with the weights of its scenario."""
        return self.affine(H, *self.product(leaves), routing)

    def normalised(
        self, params: Params, X: Tensor, routing: Routing, *, is_training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return V (B, d_0) and, in training, the moving statistics after the step."""
        model, mean, variance = self.model, params["norm.mean"], params["norm.variance"]
        mu, nu, buffers, own = mean, variance, {}, routing.is_of.t()
        if is_training:
            n_d = routing.counts[:, None]
            takes_mean = routing.is_of / n_d.clamp(min=1)
            mu = torch.where(n_d >= 2, takes_mean @ X, mean)
        deviation = X - own @ mu
        if is_training:
            nu = torch.where(n_d >= 2, takes_mean @ deviation.square(), variance)
            with torch.no_grad():
                moved = n_d >= 2
                new_mean = torch.where(moved, torch.lerp(mu, mean, model.momentum), mean)
                new_variance = torch.where(
                    moved, torch.lerp(nu, variance, model.momentum), variance
                )
                buffers = {"norm.mean": new_mean, "norm.variance": new_variance}
        scale = params["norm.gamma"] * params["norm.scenario_gamma"] * torch.rsqrt(nu + model.eps)
        shift = params["norm.beta"] + params["norm.scenario_beta"]
        return torch.addcmul(own @ shift, deviation, own @ scale), buffers

    def auxiliary(self, params: Params, X: Tensor, routing: Routing) -> Tensor:
        """Return z_aux (B,): the scenario's part of the first layer is made once per scenario."""
        of_domain, of_x = params["aux.mlp.layer_1.W"].split([self.model.dim_domain, X.shape[1]])
        domain = torch.addmm(params["aux.mlp.layer_1.b"], params["aux.domain.table"], of_domain)
        A = torch.addmm(routing.is_of.t() @ domain, X, of_x)
        z = torch.addmm(params["aux.mlp.layer_2.b"], torch.relu_(A), params["aux.mlp.layer_2.W"])
        return z[:, 0]


class SplitSTAR(STAR):
    """Slices by split and cat."""

    form = "split"


class DenseSTAR(STAR):
    """All rows through the maps of all scenarios."""

    form = "dense"


class PEPNet(PackedPEPNet, Lookup):
    """First layers of the gates of PPNet by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        model = self.model
        X = self.embed(params, rows)
        U = torch.cat([X[:, : model.dim_aware], X.detach()], dim=1)
        H = torch.relu_(torch.addmm(params["epnet.layer_1.b"], U, params["epnet.layer_1.W"]))
        O = X * self.gate(params, "epnet", H)  # noqa: E741
        U = torch.cat([self.prior(X), O.detach()], dim=1)
        gates = torch.relu_(torch.addmm(params["gates.b"], U, params["gates.W"]))
        H = O
        n_layers = len(model.hidden)
        for i, part in enumerate(gates.chunk(n_layers, dim=1), start=1):
            A = torch.addmm(params[f"ppnet.layer_{i}.b"], H, params[f"ppnet.layer_{i}.W"])
            H = torch.relu_(A) * self.gate(params, f"ppnet.gate_{i}", part)
        head = f"ppnet.layer_{n_layers + 1}"
        return Outputs(torch.addmm(params[f"{head}.b"], H, params[f"{head}.W"])[:, 0])

    def prior(self, X: Tensor) -> Tensor:
        """Return E_prior; fields that stand side by side are a slice."""
        model, k = self.model, self.model.dim_embedding
        first, last = model.priors[0], model.priors[-1]
        if model.priors == tuple(range(first, last + 1)):
            return X[:, first * k : (last + 1) * k]
        return torch.cat([X[:, field * k : (field + 1) * k] for field in model.priors], dim=1)

    def gate(self, params: Params, path: str, H: Tensor) -> Tensor:
        """Return delta from the hidden units of a gate."""
        A = torch.addmm(params[f"{path}.layer_2.b"], H, params[f"{path}.layer_2.W"])
        return self.model.gamma * torch.sigmoid(A)


class AdaSparse(PackedAdaSparse, Lookup):
    """What E_aw gives to all pruners by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits, in training also the regulariser and the counter of steps."""
        model, step = self.model, params["schedule.step"]
        tau = (step / model.schedule_steps).clamp(max=1.0)
        alpha = (1.0 - tau) * model.alpha_start + tau * model.alpha_end
        H = self.embed(params, rows)
        of_e = torch.addmm(params["aware.b"], H[:, : model.dim_aware], params["aware.W"])
        widths = [shape[0] for shape in model.shapes.values()]
        means = []
        for name, part in zip(model.shapes, of_e.split(widths, dim=1), strict=True):
            v_in = torch.addmm(part, H, params[f"{name}.from_h"])
            pi = self.factors(v_in, alpha)
            means.append(pi.mean())
            H = torch.addmm(params[f"{name}.b"], H * pi, params[f"{name}.W"])
            if name != "head":
                H = torch.relu_(H)
        if draws is None or not model.sparsity_weight:
            return Outputs(H[:, 0])
        lambda_hat = (1.0 - tau) * model.lambda_start + tau * model.lambda_end
        R_s = self.regulariser(1.0 - torch.stack(means), lambda_hat)
        return Outputs(H[:, 0], {"sparsity": R_s}, {"schedule.step": step + 1.0})

    def factors(self, v_in: Tensor, alpha: Tensor) -> Tensor:
        """Return pi (B, N); what is pruned gets no gradient."""
        v = self.model.beta * torch.sigmoid(alpha * v_in)
        return functional.threshold(v, self.model.epsilon, 0.0)

    def regulariser(self, r: Tensor, lambda_hat: Tensor) -> Tensor:
        """Return R_s from the shares of all layers."""
        model = self.model
        gap = r - 0.5 * (model.r_min + model.r_max)
        is_outside = (r < model.r_min) | (r > model.r_max)
        return (lambda_hat * gap.square() * is_outside).mean()


class APG(PackedAPG, Lookup):
    """Cores of all layers by one product; each row through its core by multiplying and adding."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        model = self.model
        K, H = model.rank, self.embed(params, rows)
        E_aw = H[:, : model.dim_aware]
        S = torch.addmm(params["generators.b"], E_aw, params["generators.W"])
        for name, S_l in zip(model.layers, S.view(len(H), -1, K, K).unbind(1), strict=True):
            U, V = self.matrix(params, f"{name}.U"), self.matrix(params, f"{name}.V")
            R = self.core(S_l, H @ V.t())
            H = torch.relu_(torch.addmm(params[f"{name}.b"], R, U.t()))
        return Outputs(torch.addmm(params["head.b"], H, params["head.W"])[:, 0])

    def matrix(self, params: Params, path: str) -> Tensor:
        """Return U or V, multiplied out if it is over-parameterised."""
        if path in params:
            return params[path]
        return params[f"{path}_left"] @ params[f"{path}_right"]

    def core(self, S: Tensor, Q: Tensor) -> Tensor:
        """R_b = S_b Q_b."""
        return (S * Q[:, None]).sum(2)


class BatchedAPG(APG):
    """Cores by a batched product."""

    def core(self, S: Tensor, Q: Tensor) -> Tensor:
        """R_b = S_b Q_b."""
        return torch.bmm(S, Q[..., None])[..., 0]


class OptMSM(PackedOptMSM, Routed):
    """The loss from products of embeddings that are not normalised: D^2 numbers per row."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training, the orthogonality loss."""
        model = self.model
        X, routing = self.sorted_rows(params, rows)
        E_sp, E_sh = X.split(model.dims_input, dim=1)
        c = torch.relu_(torch.addmm(params["encoder.b"], E_sp, params["encoder.W"]))
        G = torch.addmm(params["set.b"], E_sh, params["set.W"]).view(len(X), model.n_scenarios, -1)
        gate = (params["shared.attention.b"], c, params["shared.attention.W"])
        w = torch.softmax(torch.addmm(*gate), dim=1)
        H = torch.cat([c, self.mixture(w, G)], dim=1)
        theta = torch.addmm(params["omega_0"], params["code.Z"], params["hypernetwork.Omega"])
        W_1, b_1, W_2, b_2 = theta.split(model.tower.hypernetwork.tower.widths, dim=1)
        W_1, W_2 = W_1.unflatten(1, (H.shape[1], -1)), W_2[..., None]
        z = own_dot(torch.relu_(self.affine(H, W_1, b_1, routing)), W_2, b_2, routing)
        is_regularised = draws is not None and model.orth_weight > 0.0
        auxiliary = {"orthogonality": self.orthogonality(G)} if is_regularised else {}
        return Outputs(routing.restore(z), auxiliary)

    def mixture(self, w: Tensor, G: Tensor) -> Tensor:
        """(B, D) and (B, D, q) -> (B, q)."""
        return torch.bmm(w[:, None], G)[:, 0]

    def gram(self, G: Tensor, other: Tensor) -> Tensor:
        """Two sets (B, D, q) -> (B, D, D)."""
        return torch.bmm(G, other.transpose(1, 2))

    def orthogonality(self, G: Tensor) -> Tensor:
        """Return the mean square of the cosines.

        Both sides of a product are the same embeddings, so the gradient is twice that of one side.
        """
        n_rows, D, _ = G.shape
        fixed = G.detach()
        products = self.gram(G, fixed)
        squared_norms = products.diagonal(dim1=1, dim2=2) + self.model.eps
        is_same = torch.eye(D, dtype=torch.bool, device=G.device)
        squares = products.square() / squared_norms.detach()[:, None]
        norms = G.square().sum(2) + self.model.eps
        one_side = (squares.masked_fill(is_same, 0.0).sum(2) / norms).sum()
        return (2.0 * one_side - one_side.detach()) / (n_rows * max(D * (D - 1), 1))


class SummedOptMSM(OptMSM):
    """The mixture by multiplying and adding."""

    def mixture(self, w: Tensor, G: Tensor) -> Tensor:
        """(B, D) and (B, D, q) -> (B, q)."""
        return (w[..., None] * G).sum(1)


class DenseOptMSM(SummedOptMSM):
    """Dense, for a compiler."""

    form = "dense"


class NormalisedOptMSM(SummedOptMSM):
    """The loss as the equations read."""

    def orthogonality(self, G: Tensor) -> Tensor:
        """Return the mean square of the cosines."""
        n_rows, D, _ = G.shape
        G_hat = G * torch.rsqrt(G.square().sum(2, keepdim=True) + self.model.eps)
        products = torch.bmm(G_hat, G_hat.transpose(1, 2))
        off_diagonal = products * (1.0 - torch.eye(D, dtype=G.dtype, device=G.device))
        return off_diagonal.square().sum() / (n_rows * max(D * (D - 1), 1))


NETWORKS: dict[str, dict[str, type[Network]]] = {
    "ple": {"grouped summed": SummedPLE, "grouped": PLE, "split": SplitPLE, "dense": DensePLE},
    "star": {"grouped": STAR, "split": SplitSTAR, "dense": DenseSTAR},
    "pepnet": {"stacked": PEPNet},
    "adasparse": {"stacked": AdaSparse},
    "apg": {"summed": APG, "batched": BatchedAPG},
    "optmsm": {
        "grouped summed": SummedOptMSM,
        "grouped": OptMSM,
        "dense": DenseOptMSM,
        "normalised": NormalisedOptMSM,
    },
}
