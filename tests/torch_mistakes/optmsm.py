"""How the PyTorch version of OptMSM carries the mistakes of the catalogue."""

from unittest import mock

import torch
from torch_reference import optmsm as right
from torch_reference.blocks import stop

from torch_mistakes.carrier import Carrier, changed, differentiated_as


def at(**replacements):
    """Exchange functions of the reference."""
    return Carrier({f"torch_reference.optmsm.{name}": f for name, f in replacements.items()})


# --- shared set and its mixture -------------------------------------------------------------------

right_set = right.set_of_embeddings
right_mixed = right.mixed
right_attention = right.attention


def one_map(E_sh, A, a):
    return torch.stack([E_sh @ A[0] + a[0]] * len(A), dim=1)


def reshaped_kernels(E_sh, A, a):
    joined = A.reshape(A.shape[1], -1)
    return (E_sh @ joined).reshape(len(E_sh), *a.shape) + a


def without_inner_product(alpha):
    w = torch.softmax(alpha, dim=1).detach()
    return differentiated_as(w, w * alpha)


SET = {
    "ReLU behind the shared embeddings": at(
        set_of_embeddings=lambda E_sh, A, a: torch.relu(right_set(E_sh, A, a))
    ),
    "one map repeated for all shared embeddings": at(set_of_embeddings=one_map),
    "kernels of the set laid side by side by a reshape": at(set_of_embeddings=reshaped_kernels),
    "attention's softmax over the batch": at(softmax=lambda alpha: torch.softmax(alpha, dim=0)),
    "attention through sigmoids": at(softmax=torch.sigmoid),
    "attention's softmax applied twice": at(
        softmax=lambda alpha: torch.softmax(torch.softmax(alpha, dim=1), dim=1)
    ),
    "attention's softmax without the inner product in its adjoint": at(
        softmax=without_inner_product
    ),
    "attention's input detached": at(attention=lambda c, W, b: right_attention(c.detach(), W, b)),
    "attention's weights detached in the mixture": at(
        mixed=lambda w, G: right_mixed(w.detach(), G)
    ),
    "input of the tower joined the other way": at(joined=lambda c, m: torch.cat([m, c], dim=1)),
}

# --- orthogonality loss ---------------------------------------------------------------------------

right_mean = right.mean_over_pairs
right_orthogonality = right.orthogonality


def one_side_detached(G):
    products = G @ G.detach().mT
    return products - torch.diag_embed(torch.diagonal(products, dim1=1, dim2=2))


def projected_on_g(G, nu):
    return G / changed(nu, lambda d_nu: d_nu * nu.detach() ** 2)


def summed_over_the_batch(products):
    return len(products) * right_mean(products)


def weighted_twice(G, options, trace):
    def mean_over_pairs(products):
        return right_mean(changed(products, lambda d: options.orth_weight * d))

    with mock.patch.object(right, "mean_over_pairs", mean_over_pairs):
        return right_orthogonality(G, options, trace)


def joint_loss_without_weight(ce, auxiliary, weights):
    return ce + sum(auxiliary.values())


ORTHOGONALITY = {
    "embeddings normalised over the axis of the set": at(
        length=lambda G, eps: torch.linalg.norm(G, dim=1, keepdim=True)
    ),
    "eps as a lower bound of the norm": at(
        length=lambda G, eps: torch.linalg.norm(G, dim=2, keepdim=True).clamp(min=eps)
    ),
    "orthogonality of embeddings that are not normalised": at(normalised=lambda G, nu: G.clone()),
    "norm of the embeddings detached": at(normalised=lambda G, nu: G / nu.detach()),
    "projection made with g in place of g_hat": at(normalised=projected_on_g),
    "diagonal counted in the orthogonality": at(products_of_pairs=lambda G: G @ G.mT),
    "each pair of embeddings counted once": at(
        products_of_pairs=lambda G: torch.triu(G @ G.mT, diagonal=1)
    ),
    "one side of the embeddings' products detached": at(products_of_pairs=one_side_detached),
    "orthogonality over all entries of the products": at(
        mean_over_pairs=lambda products: products.pow(2).mean()
    ),
    "orthogonality summed over the batch": at(mean_over_pairs=summed_over_the_batch),
    "orthogonality by the norm in place of its square": at(
        mean_over_pairs=lambda products: torch.linalg.norm(products, dim=(1, 2)).mean()
    ),
    "orthogonality detached from the embeddings": at(
        mean_over_pairs=lambda products: stop(right_mean(products))
    ),
    "weight of the orthogonality left out": Carrier(
        {"torch_reference.blocks.joint_loss": joint_loss_without_weight}
    ),
    "weight of the orthogonality counted twice in the gradient": at(orthogonality=weighted_twice),
}

# --- hypernetwork and tower -----------------------------------------------------------------------

right_coefficients = right.coefficients
right_generated = right.generated
right_chosen = right.chosen
right_cut = right.cut
right_forward = right.forward


def places(scenario):
    """Each row's place among the scenarios present."""
    return torch.unique(scenario, return_inverse=True)[1]


def code_detached(code, hyper, options):
    """u itself still has a gradient; what it is made of has none."""
    return right_coefficients(changed(code, torch.zeros_like), hyper, options)


def omega_0_averaged(u, Omega, start):
    return right_generated(u, Omega, changed(start, lambda d: d / len(u)))


def gradient_by_place(theta, scenario):
    return differentiated_as(theta[scenario], theta[places(scenario)])


def gradient_of_the_last_row(theta, scenario):
    rows = range(len(scenario))
    is_last = [not (scenario[b + 1 :] == scenario[b]).any() for b in rows]
    return torch.stack(
        [theta[scenario[b]] if is_last[b] else theta[scenario[b]].detach() for b in rows]
    )


def first_tower_in_prediction(params, batch, options, trace, *, training):
    if training:
        return right_forward(params, batch, options, trace, training=True)

    def chosen(theta, scenario):
        return right_chosen(theta, scenario[:1].expand_as(scenario))

    with mock.patch.object(right, "chosen", chosen):
        return right_forward(params, batch, options, trace, training=False)


def biases_first(theta, options):
    h = options.tower_hidden
    b_1, W_1, b_2, W_2 = torch.split(theta, [h, theta.shape[1] - 2 * h - 1, 1, h], dim=1)
    return W_1.reshape(len(theta), -1, h), b_1, W_2[:, :, None], b_2


def outputs_first(theta, options):
    W_1, *others = right_cut(theta, options)
    dim_in, h = W_1.shape[1:]
    return theta[:, : dim_in * h].reshape(-1, h, dim_in).mT, *others


HYPERNETWORK = {
    "ReLU between the factors of Omega": at(
        reduced=lambda code, Omega_in: torch.relu(code @ Omega_in)
    ),
    "code detached in the hypernetwork": at(coefficients=code_detached),
    "omega_0 left out": at(generated=lambda u, Omega, start: u @ Omega),
    "gradient of omega_0 averaged over the scenarios": at(generated=omega_0_averaged),
    "towers by place among the scenarios present": at(
        chosen=lambda theta, scenario: theta[places(scenario)]
    ),
    "gradients of towers by place among the scenarios present": at(chosen=gradient_by_place),
    "gradient of a tower from its last row only": at(chosen=gradient_of_the_last_row),
    "prediction with the tower of the batch's first row": at(forward=first_tower_in_prediction),
    "theta cut with the biases first": at(cut=biases_first),
    "generated kernel read with its outputs first": at(cut=outputs_first),
    "generated tower without its activation": at(inside_the_tower=lambda A, options: A),
    "logits left sorted by scenario": at(
        logits=lambda out, scenario: out[torch.argsort(scenario, stable=True), 0]
    ),
}

MISTAKES: dict[str, Carrier] = SET | ORTHOGONALITY | HYPERNETWORK
