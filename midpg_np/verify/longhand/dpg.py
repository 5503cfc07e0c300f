"""DPG and MI-DPG in full: every weighting matrix is built (derivations 3.2 to 3.4)."""

from __future__ import annotations

from midpg_np.models.dpg import DPG
from midpg_np.models.midpg import MIDPG
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss, write_mlp
from midpg_np.verify.longhand.rules import (
    ADD,
    AFFINE,
    CONCAT,
    FIRST_COLUMN,
    FLATTEN,
    GATHER,
    JENSEN_SHANNON,
    MATMUL,
    MULTIPLY,
    STOP,
    activation,
    columns,
    reshape,
    scale,
    scaled_sigmoid,
    weighted_sum,
)
from midpg_np.verify.longhand.weighting import BILINEAR, PRODUCTS, mean_over_inputs, repeat


def dpg(model: DPG, *, training: bool = True) -> Calculation:
    """Write out a step of DPG."""
    do = Sheet()
    z = _write_network(do, model)
    write_loss(do, model, z)
    return finish(do, model)


def midpg(model: MIDPG, *, training: bool = True) -> Calculation:
    """Write out a step of MI-DPG; without ``training`` there is no regulariser."""
    do = Sheet()
    z = _write_network(do, model)
    if training:
        _write_regulariser(do, model)
    write_loss(do, model, z, ("mi",) if training else ())
    return finish(do, model)


def _write_network(do: Sheet, model: DPG) -> str:
    """Write the backbone and return the name of its output (B, 1)."""
    X = write_embedding(do, model)
    H = X
    do("E_aw", columns(0, model.dim_aware), X)
    for i, (name, layer) in enumerate(model.layers.items(), start=1):
        do(f"{name}.U", CONCAT, "E_aw", *_beside_context(do, model, name, H), eq="3.2a")
        _write_core(do, model, name, name, f"{name}.U")
        do(f"{name}.S", repeat(*layer.w_shape, layer.repeat_mode), f"{name}.Q", eq="3.2b")
        do(f"{name}.SW", MULTIPLY, f"{name}.S", f"{name}.W", eq="3.2f (1)")
        product = do(f"{name}.product", PRODUCTS[layer.w_layout], f"{name}.SW", H, eq="3.2f (1)")
        bias = f"{name}.b"
        if layer.modulate_bias:
            mean = do(f"{name}.S_mean", mean_over_inputs(layer.w_layout), f"{name}.S", eq="3.2i")
            bias = do(f"{name}.weighted_b", MULTIPLY, mean, bias, eq="3.2i")
        H = do(f"{name}.A", ADD, product, bias, eq="3.2f (1)")
        if name != "head":
            H = do(f"H_{i + 1}", activation(model.activation), f"{name}.A", eq="3.2g")
    return H if model.modulate_output else do("z", AFFINE, H, "head.W", "head.b", eq="3.2g")


def _beside_context(do: Sheet, model: DPG, name: str, H: str) -> tuple[str, ...]:
    """Write what the generators of a layer read beside E_aw, and return its name."""
    if model.dwm_inputs == "aw_only":
        return ()
    if model.dedup_first and name == "layer_1":
        dim_x = len(model.vocab_sizes) * model.dim_embedding
        H = do("E_ag", columns(model.dim_aware, dim_x), "X", eq="3.8")
    if model.dwm_detach_h:
        H = do(f"{name}.sg_H", STOP, H, eq="3.8")
    return (H,)


def _write_core(do: Sheet, model: DPG, name: str, prefix: str, U: str) -> None:
    """Write ``prefix.Q`` from U: generators, factors, product, sigmoid (3)-(5)."""
    weighting, params = model.layers[name].weighting, f"{name}.weighting"
    factors = {"S_R": f"{params}.R_share", "S_C": f"{params}.C_share"}
    shapes = {
        "core_generator": ("P", weighting.d_r, weighting.d_c),
        "row_generator": ("S_R", weighting.d_r, weighting.d_k),
        "column_generator": ("S_C", weighting.d_k, weighting.d_c),
    }
    for generator, mlp in weighting.generators.items():
        out = write_mlp(do, f"{prefix}.{generator}", f"{params}.{generator}", mlp, U, eq="3.2c")
        factor, *shape = shapes[generator]
        factors[factor] = do(f"{prefix}.{factor}", reshape(*shape), out, eq="3.2c")
    if weighting.sigmoid_on == "factors" and weighting.variant != "non":
        for factor in ("S_R", "S_C"):
            sigma = f"{prefix}.sigma_{factor}"
            factors[factor] = do(sigma, scaled_sigmoid(1.0), factors[factor], eq="3.2h")
        do(f"{prefix}.P", MATMUL, factors["S_R"], factors["S_C"], eq="3.2h")
        do(f"{prefix}.Q", scale(weighting.gain), f"{prefix}.P", eq="3.2h")
        return
    if weighting.variant != "non":
        do(f"{prefix}.P", MATMUL, factors["S_R"], factors["S_C"], eq="3.2c (3)-(5)")
    do(f"{prefix}.Q", scaled_sigmoid(weighting.gain), f"{prefix}.P", eq="3.2b (3)-(5)")


def _write_regulariser(do: Sheet, model: MIDPG) -> None:
    """Write "mi": matching and shuffled pairs of every discriminator (6), (7)."""
    context = "E_aw"
    if model.mi_detach_context or model.mi_grad_to != "all":
        context = do("mi.sg_E_aw", STOP, "E_aw", eq="3.8")
    negative = do("mi.E_neg", GATHER, context, "partner", eq="3.3a (7)")
    losses = []
    for group, names in model._groups.items():
        at = f"mi.{group}"
        signals = [_write_signal(do, model, name) for name in names]
        q = do(f"{at}.q", CONCAT, *signals, eq="3.3a")
        for kind, e in (("pos", context), ("neg", negative)):
            _write_score(do, model, group, kind, e, q)
        t = (f"{at}.t_pos", f"{at}.t_neg")
        losses.append(do(f"{at}.loss", JENSEN_SHANNON, *t, eq="3.3b (7)"))
    do("mi", weighted_sum([model._reduction] * len(losses)), *losses, eq="3.3c")


def _write_signal(do: Sheet, model: MIDPG, name: str) -> str:
    """Write what a discriminator reads of one layer, (B, width) (3.8, rows 17 and 18)."""
    source = name
    if model.mi_grad_to == "disc+gen":  # the generator learns, what it reads does not
        source = f"mi.{name}"
        U = do(f"{source}.sg_U", STOP, f"{name}.U", eq="3.8")
        _write_core(do, model, name, source, U)
    layer, at = model.layers[name], f"mi.{name}"
    if model.disc_input == "factors":
        generated = [f"{source}.{g}.output" for g in layer.weighting.generators]
        signal = do(f"{at}.signal", CONCAT, *generated, eq="3.8")
    elif model.disc_input == "full":
        S = f"{at}.S"
        do(S, repeat(*layer.w_shape, layer.repeat_mode), f"{source}.Q", eq="3.8")
        signal = do(f"{at}.signal", FLATTEN, S, eq="3.8")
    else:
        signal = do(f"{at}.signal", FLATTEN, f"{source}.Q", eq="3.3a")
    return do(f"{at}.sg_signal", STOP, signal, eq="3.8") if model.mi_grad_to == "disc" else signal


def _write_score(do: Sheet, model: MIDPG, group: str, kind: str, e: str, q: str) -> None:
    """Write the logits ``mi.group.t_kind`` (B,) of the pairs (e_b, q_b)."""
    at, params = f"mi.{group}", f"discriminators.{group}"
    if model.disc == "bilinear":
        out = do(f"{at}.{kind}.output", BILINEAR, e, q, f"{params}.M", f"{params}.b", eq="3.3f")
    else:
        pair = do(f"{at}.{kind}.pair", CONCAT, e, q, eq="3.3a")
        mlp = model.regularisers[group].discriminator.mlp
        out = write_mlp(do, f"{at}.{kind}", params, mlp, pair, eq="3.3a")
    do(f"{at}.t_{kind}", FIRST_COLUMN, out, eq="3.3a")
