"""PLE, STAR, PEPNet, AdaSparse, APG and OptMSM in JAX: the forms of ``torch_relatives``.

Shapes must not depend on the data, so rows cannot be cut by scenario.  *dense* multiplies all rows
with the maps of all scenarios and picks; *ragged* sorts and leaves the rest to ``ragged_dot``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frameworks import Network, Outputs, Rows
from frameworks.jax_networks import Lookup
from frameworks.packed_relatives import (
    PackedAdaSparse,
    PackedAPG,
    PackedOptMSM,
    PackedPEPNet,
    PackedPLE,
    PackedSTAR,
)

Params = Mapping[str, Any]


class Routed(Lookup):
    """Sends each row through the map of its scenario."""

    def affine(self, H: Any, W: Any, b: Any, scenario: Any) -> Any:
        """Multiply all rows with all maps W (D, I, O) and b (D, O), and pick, (B, O)."""
        n_maps, dim_in, dim_out = W.shape
        A = H @ W.transpose(1, 0, 2).reshape(dim_in, -1) + b.reshape(-1)
        return self.own(A.reshape(-1, n_maps, dim_out), scenario)

    def own(self, A: Any, scenario: Any) -> Any:
        """(B, D, q) -> (B, q)."""
        return jnp.take_along_axis(A, scenario[:, None, None], axis=1)[:, 0]

    def is_of(self, params: Params, scenario: Any) -> Any:
        """(B, D): 1 where a row belongs to a scenario."""
        return jax.nn.one_hot(
            scenario, self.model.n_scenarios, dtype=params["embedding.table"].dtype
        )


class Ragged(Routed):
    """Sorts for every map, which costs little beside the product."""

    def affine(self, H: Any, W: Any, b: Any, scenario: Any) -> Any:
        """Multiply sorted rows with their maps."""
        order = jnp.argsort(scenario)
        counts = jnp.bincount(scenario, length=self.model.n_scenarios).astype(jnp.int32)
        A = jax.lax.ragged_dot(H[order], W, counts)
        return A[jnp.argsort(order)] + b[scenario]


class PLE(PackedPLE, Routed):
    """All experts of level 1 by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        n, s = self.model.n_scenarios, rows.scenario
        X = self.embed(params, rows)
        S = jax.nn.relu(X @ params["experts.W"] + params["experts.b"])
        S = S.reshape(len(X), n + 1, -1)
        alpha_k, alpha_s = jnp.split(X @ params["gates.W"] + params["gates.b"], [2 * n], axis=1)
        w_k, w_s = self.own_gate(alpha_k, s), jax.nn.softmax(alpha_s, axis=1)
        G = w_k[:, :1] * self.own(S, s) + w_k[:, 1:] * S[:, -1]
        G_s = (w_s[..., None] * S).sum(1)
        E_k = jax.nn.relu(self.affine(G, params["own.W"], params["own.b"], s))
        E_s = jax.nn.relu(G_s @ params["level_2.W"] + params["level_2.b"])
        w = self.own_gate(G @ params["gates_2.W"] + params["gates_2.b"], s)
        H = w[:, :1] * E_k + w[:, 1:] * E_s
        *hidden, last = [(params[f"{path}.W"], params[f"{path}.b"]) for path in self.tower]
        for layer in hidden:
            H = jax.nn.relu(self.affine(H, *layer, s))
        return Outputs(Routed.affine(self, H, *last, s)[:, 0])

    def own_gate(self, alpha: Any, scenario: Any) -> Any:
        """Return each row's weights (B, 2) from the logits (B, D 2) of all gates."""
        return jax.nn.softmax(self.own(alpha.reshape(len(alpha), -1, 2), scenario), axis=1)


class RaggedPLE(PLE, Ragged):
    """With ``ragged_dot``."""


class STAR(PackedSTAR, Routed):
    """Products of the weights for all scenarios, statistics by products with ``is_of``."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and the moving statistics."""
        s, X = rows.scenario, self.embed(params, rows)
        own = self.is_of(params, s)
        H, buffers = self.normalised(params, X, own, is_training=draws is not None)
        n_layers = len(self.model.hidden) + 1
        for i in range(1, n_layers + 1):
            shared, scenario = f"star.layer_{i}.shared", f"star.layer_{i}.scenario"
            W = params[f"{shared}.W"] * params[f"{scenario}.W"]
            b = params[f"{shared}.b"] + params[f"{scenario}.b"]
            if i == n_layers:
                z = Routed.affine(self, H, W, b, s)[:, 0]
            else:
                H = jax.nn.relu(self.affine(H, W, b, s))
        return Outputs(z + self.auxiliary(params, X, own), {}, buffers)

    def normalised(
        self, params: Params, X: Any, own: Any, *, is_training: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Return V (B, d_0) and, in training, the moving statistics after the step."""
        model, mean, variance = self.model, params["norm.mean"], params["norm.variance"]
        mu, nu, buffers = mean, variance, {}
        if is_training:
            n_d = own.sum(0)[:, None]
            takes_mean = own.T / jnp.maximum(n_d, 1)
            mu = jnp.where(n_d >= 2, takes_mean @ X, mean)
        deviation = X - own @ mu
        if is_training:
            nu = jnp.where(n_d >= 2, takes_mean @ jnp.square(deviation), variance)
            rho = model.momentum
            buffers = {
                "norm.mean": jnp.where(n_d >= 2, rho * mean + (1.0 - rho) * mu, mean),
                "norm.variance": jnp.where(n_d >= 2, rho * variance + (1.0 - rho) * nu, variance),
            }
        scale = params["norm.gamma"] * params["norm.scenario_gamma"] / jnp.sqrt(nu + model.eps)
        shift = params["norm.beta"] + params["norm.scenario_beta"]
        return deviation * (own @ scale) + own @ shift, jax.lax.stop_gradient(buffers)

    def auxiliary(self, params: Params, X: Any, own: Any) -> Any:
        """Return z_aux (B,): the scenario's part of the first layer is made once per scenario."""
        of_domain, of_x = jnp.split(params["aux.mlp.layer_1.W"], [self.model.dim_domain])
        domain = params["aux.domain.table"] @ of_domain + params["aux.mlp.layer_1.b"]
        H = jax.nn.relu(X @ of_x + own @ domain)
        return (H @ params["aux.mlp.layer_2.W"] + params["aux.mlp.layer_2.b"])[:, 0]


class RaggedSTAR(STAR, Ragged):
    """With ``ragged_dot``."""


class PEPNet(PackedPEPNet, Lookup):
    """First layers of the gates of PPNet by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        model, sg = self.model, jax.lax.stop_gradient
        X = self.embed(params, rows)
        U = jnp.concatenate([X[:, : model.dim_aware], sg(X)], axis=1)
        H = jax.nn.relu(U @ params["epnet.layer_1.W"] + params["epnet.layer_1.b"])
        O = X * self.gate(params, "epnet", H)  # noqa: E741
        fields = X.reshape(len(X), -1, model.dim_embedding)[:, np.asarray(model.priors)]
        U = jnp.concatenate([fields.reshape(len(X), -1), sg(O)], axis=1)
        gates = jax.nn.relu(U @ params["gates.W"] + params["gates.b"])
        H = O
        n_layers = len(model.hidden)
        for i, part in enumerate(jnp.split(gates, n_layers, axis=1), start=1):
            A = H @ params[f"ppnet.layer_{i}.W"] + params[f"ppnet.layer_{i}.b"]
            H = jax.nn.relu(A) * self.gate(params, f"ppnet.gate_{i}", part)
        head = f"ppnet.layer_{n_layers + 1}"
        return Outputs((H @ params[f"{head}.W"] + params[f"{head}.b"])[:, 0])

    def gate(self, params: Params, path: str, H: Any) -> Any:
        """Return delta from the hidden units of a gate."""
        A = H @ params[f"{path}.layer_2.W"] + params[f"{path}.layer_2.b"]
        return self.model.gamma * jax.nn.sigmoid(A)


class AdaSparse(PackedAdaSparse, Lookup):
    """What E_aw gives to all pruners by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits, in training also the regulariser and the counter of steps."""
        model, step = self.model, params["schedule.step"]
        tau = jnp.minimum(step / model.schedule_steps, 1.0)
        alpha = (1.0 - tau) * model.alpha_start + tau * model.alpha_end
        H = self.embed(params, rows)
        of_e = H[:, : model.dim_aware] @ params["aware.W"] + params["aware.b"]
        ends = np.cumsum([shape[0] for shape in model.shapes.values()])[:-1]
        means = []
        for name, part in zip(model.shapes, jnp.split(of_e, ends, axis=1), strict=True):
            v = model.beta * jax.nn.sigmoid(alpha * (H @ params[f"{name}.from_h"] + part))
            pi = jnp.where(v > model.epsilon, v, 0.0)
            means.append(pi.mean())
            H = (H * pi) @ params[f"{name}.W"] + params[f"{name}.b"]
            if name != "head":
                H = jax.nn.relu(H)
        if draws is None or not model.sparsity_weight:
            return Outputs(H[:, 0])
        lambda_hat = (1.0 - tau) * model.lambda_start + tau * model.lambda_end
        r = 1.0 - jnp.stack(means)
        gap = r - 0.5 * (model.r_min + model.r_max)
        is_outside = (r < model.r_min) | (r > model.r_max)
        R_s = (lambda_hat * jnp.square(gap) * is_outside).mean()
        return Outputs(H[:, 0], {"sparsity": R_s}, {"schedule.step": step + 1.0})


class APG(PackedAPG, Lookup):
    """Cores of all layers by one product."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits."""
        model = self.model
        K, H = model.rank, self.embed(params, rows)
        S = H[:, : model.dim_aware] @ params["generators.W"] + params["generators.b"]
        S = S.reshape(len(H), -1, K, K)
        for i, name in enumerate(model.layers):
            U, V = self.matrix(params, f"{name}.U"), self.matrix(params, f"{name}.V")
            R = (S[:, i] * (H @ V.T)[:, None]).sum(2)
            H = jax.nn.relu(R @ U.T + params[f"{name}.b"])
        return Outputs((H @ params["head.W"] + params["head.b"])[:, 0])

    def matrix(self, params: Params, path: str) -> Any:
        """Return U or V, multiplied out if it is over-parameterised."""
        if path in params:
            return params[path]
        return params[f"{path}_left"] @ params[f"{path}_right"]


class OptMSM(PackedOptMSM, Routed):
    """The loss from products of embeddings that are not normalised: D^2 numbers per row."""

    def forward(self, params: Params, rows: Rows, draws: Any) -> Outputs:
        """Return the logits and, in training, the orthogonality loss."""
        model, s = self.model, rows.scenario
        X = self.embed(params, rows)
        E_sp, E_sh = jnp.split(X, [model.dims_input[0]], axis=1)
        c = jax.nn.relu(E_sp @ params["encoder.W"] + params["encoder.b"])
        G = (E_sh @ params["set.W"] + params["set.b"]).reshape(len(X), model.n_scenarios, -1)
        alpha = c @ params["shared.attention.W"] + params["shared.attention.b"]
        m = (jax.nn.softmax(alpha, axis=1)[..., None] * G).sum(1)
        H = jnp.concatenate([c, m], axis=1)
        theta = params["code.Z"] @ params["hypernetwork.Omega"] + params["omega_0"]
        ends = np.cumsum(model.tower.hypernetwork.tower.widths)[:-1]
        W_1, b_1, W_2, b_2 = jnp.split(theta, ends, axis=1)
        W_1 = W_1.reshape(len(theta), H.shape[1], -1)
        H = jax.nn.relu(self.affine(H, W_1, b_1, s))
        z = Routed.affine(self, H, W_2[..., None], b_2, s)[:, 0]
        is_regularised = draws is not None and model.orth_weight > 0.0
        return Outputs(z, {"orthogonality": self.orthogonality(G)} if is_regularised else {})

    def orthogonality(self, G: Any) -> Any:
        """Return the mean square of the cosines; the gradient is twice that of one side."""
        n_rows, D, _ = G.shape
        fixed = jax.lax.stop_gradient(G)
        products = self.gram(G, fixed)
        squares = jnp.square(products) / (jnp.square(fixed).sum(2) + self.model.eps)[:, None]
        squares = jnp.where(jnp.eye(D, dtype=bool), 0.0, squares)
        one_side = (squares.sum(2) / (jnp.square(G).sum(2) + self.model.eps)).sum()
        loss = 2.0 * one_side - jax.lax.stop_gradient(one_side)
        return loss / (n_rows * max(D * (D - 1), 1))

    def gram(self, G: Any, other: Any) -> Any:
        """Two sets (B, D, q) -> (B, D, D)."""
        return G @ other.transpose(0, 2, 1)


class SummedOptMSM(OptMSM):
    """Products of embeddings by multiplying and adding."""

    def gram(self, G: Any, other: Any) -> Any:
        """Two sets (B, D, q) -> (B, D, D)."""
        return (G[:, :, None] * other[:, None]).sum(3)


class RaggedOptMSM(OptMSM, Ragged):
    """With ``ragged_dot``."""


NETWORKS: dict[str, dict[str, type[Network]]] = {
    "ple": {"dense": PLE, "ragged": RaggedPLE},
    "star": {"dense": STAR, "ragged": RaggedSTAR},
    "pepnet": {"stacked": PEPNet},
    "adasparse": {"stacked": AdaSparse},
    "apg": {"summed": APG},
    "optmsm": {"dense": OptMSM, "dense summed": SummedOptMSM, "ragged": RaggedOptMSM},
}
