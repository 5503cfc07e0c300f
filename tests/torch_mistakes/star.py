"""How STAR in PyTorch carries the mistakes in normalisation, star and auxiliary network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import stop
from torch_reference.star import ACTIVATIONS, moved, side_by_side, statistic

from torch_mistakes import by_scenario
from torch_mistakes.carrier import Carrier, changed, differentiated_as


def star(**patches: Any) -> Carrier:
    """Carry a mistake in functions of the model's own."""
    return Carrier({f"torch_reference.star.{name}": wrong for name, wrong in patches.items()})


# --- statistics -----------------------------------------------------------------------------------


def both(wrong: Any) -> Carrier:
    """A wrong statistic in the place of mean and variance.

    ``wrong(x, power, moving, s, training)`` is to average x to that power.
    """
    return star(means=mean_of(wrong), variances=variance_of(wrong))


def mean_of(wrong: Any) -> Any:
    return lambda X, moving, s, *, training: wrong(X, 1, moving, s, training)


def variance_of(wrong: Any) -> Any:
    return lambda deviation, moving, s, *, training: wrong(deviation, 2, moving, s, training)


def over_the_batch(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return (x**power).mean(dim=0).expand(moving.shape).clone() if training else moving


def of_single_rows(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return statistic(x**power, moving, s, training=training, least=1)


def unbiased(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return statistic(x**power, moving, s, training=training, n_fewer=1)


def always_moving(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return stop(moving)


def never_moving(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return statistic(x**power, moving, s, training=True)


def unsaved(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    at_start = torch.full_like(moving, 0.0 if power == 1 else 0.01**2)
    return statistic(x**power, moving if training else at_start, s, training=training)


def without_gradient(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    return stop(statistic(x**power, moving, s, training=training))


def by_batch_size(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    n = torch.bincount(s)[s][:, None]
    x = changed(x, lambda dx: dx * n / len(s))
    return statistic(x**power, moving, s, training=training)


def batch_formula(x: Tensor, power: int, moving: Tensor, s: Tensor, training: bool) -> Tensor:
    right = statistic(x**power, moving, s, training=training)
    return differentiated_as(right, statistic(x**power, moving, s, training=training, least=1))


def epsilon_beside(nu: Tensor, eps: float) -> Tensor:
    """Without the NaN of a root's derivative at 0."""
    is_positive = nu > 0
    root = torch.sqrt(torch.where(is_positive, nu, 1.0))
    return 1 / (torch.where(is_positive, root, 0.0) + eps)


STATISTICS = {
    "statistics over the whole batch": both(over_the_batch),
    "a single row normalised by itself": both(of_single_rows),
    "unbiased variance in the normalisation": star(variances=variance_of(unbiased)),
    "training normalised by the moving statistics": both(always_moving),
    "epsilon beside the root": star(inverse_std=epsilon_beside),
    "statistics detached": both(without_gradient),
    "way through the mean forgotten": star(means=mean_of(without_gradient)),
    "way through the variance forgotten": star(variances=variance_of(without_gradient)),
    "means of the adjoint divided by the batch": both(by_batch_size),
    "batch formula where the statistics were constants": both(batch_formula),
    "prediction normalised by its own batch": both(never_moving),
    "moving statistics not saved": both(unsaved),
}

# --- scale, shift, moving statistics --------------------------------------------------------------


def own_factor_forgotten(W: Tensor, W_d: Tensor, *_: Any) -> Tensor:
    return differentiated_as(W * W_d, W + W.detach() * W_d)


def shared_factor_forgotten(W: Tensor, W_d: Tensor, *_: Any) -> Tensor:
    return differentiated_as(W * W_d, W * W_d.detach() + W_d)


def moves(wrong: Any) -> Carrier:
    """Move otherwise: ``wrong(old, key, X, now, n, right, rho) -> new`` for every scenario."""

    def moved_otherwise(moving: Tensor, key: str, name: str, trace: Any, options: Any) -> Tensor:
        right = moved(moving, key, name, trace, options)
        old, s = moving.detach(), trace["scenario"]
        now = trace[f"{name}.{'mu' if key == 'mean' else 'nu'}"].detach()
        X, rho = trace[f"{name}.X"].detach(), options.momentum
        new = [wrong(old[d], key, X[s == d], now[d], right[d], rho) for d in range(len(old))]
        return torch.stack(new)

    return star(moved=moved_otherwise)


def taken_for_rest(old: Tensor, key: str, X: Tensor, now: Tensor, new: Tensor, rho: float):
    return (1 - rho) * old + rho * now if len(X) > 1 else new


def unbiased_kept(old: Tensor, key: str, X: Tensor, now: Tensor, new: Tensor, rho: float):
    n = len(X)
    return rho * old + (1 - rho) * now * n / (n - 1) if key == "variance" and n > 1 else new


def absent_decay(old: Tensor, key: str, X: Tensor, now: Tensor, new: Tensor, rho: float):
    return new if len(X) else rho * old


def single_rows_move(old: Tensor, key: str, X: Tensor, now: Tensor, new: Tensor, rho: float):
    if len(X) != 1:
        return new
    return rho * old + (1 - rho) * X[0] if key == "mean" else rho * old


NORM = {
    "scales added": star(scale=torch.add),
    "shifts multiplied": star(shift=torch.mul),
    "gradient of the shared scale without the scenario's": star(scale=own_factor_forgotten),
    "gradient of the scenario's scale without the shared one": star(scale=shared_factor_forgotten),
    "moving statistics never moved": moves(lambda old, *_: old),
    "momentum taken for its rest": moves(taken_for_rest),
    "unbiased variance in the moving statistics": moves(unbiased_kept),
    "statistics of absent scenarios decay": moves(absent_decay),
    "single rows move the statistics": moves(single_rows_move),
}

# --- star and auxiliary network -------------------------------------------------------------------


def last_scenario_only(W: Tensor, W_d: Tensor, s: Tensor) -> Tensor:
    last = int(s.max())
    return torch.stack([(W if d == last else W.detach()) * own for d, own in enumerate(W_d)])


def mean_probability(z_main: Tensor, z_aux: Tensor, *, training: bool) -> Tensor:
    return torch.logit((torch.sigmoid(z_main) + torch.sigmoid(z_aux)) / 2)


def main_in_prediction(z_main: Tensor, z_aux: Tensor, *, training: bool) -> Tensor:
    return z_main + z_aux if training else z_main


NETWORKS = {
    "weights of star and scenario added": star(star_weights=lambda W, W_d, s: W + W_d),
    "biases of star and scenario multiplied": star(star_biases=torch.mul),
    "activation on the main logit": star(
        main_logit=lambda A, options: ACTIVATIONS[options.activation](A)
    ),
    "gradient of the shared weights without the scenario's": star(
        star_weights=own_factor_forgotten
    ),
    "gradient of the scenario's weights without the shared": star(
        star_weights=shared_factor_forgotten
    ),
    "gradient of the shared weights from the last scenario": star(star_weights=last_scenario_only),
    "scenario's weights not registered with the optimiser": by_scenario.all_but(
        lambda name: name.startswith("star.") and ".scenario." in name
    ),
    "probabilities summed in place of logits": star(joint=mean_probability),
    "two logits averaged": star(joint=lambda z_main, z_aux, *, training: (z_main + z_aux) / 2),
    "auxiliary network left out of prediction": star(joint=main_in_prediction),
    "auxiliary network reads the normalised input": star(auxiliary_input=lambda X, V: V),
    "input detached in front of the auxiliary network": star(
        side_by_side=lambda e_dom, X: side_by_side(e_dom, X.detach())
    ),
    "scenario's embedding not trained": star(
        side_by_side=lambda e_dom, X: side_by_side(e_dom.detach(), X)
    ),
}

MISTAKES: dict[str, Carrier] = by_scenario.MISTAKES | STATISTICS | NORM | NETWORKS
