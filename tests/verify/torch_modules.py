"""Modules as somebody else would write them in PyTorch, for the sizes of ``small.py``, right ones
and wrong ones.

Only nn.Module, nn.Linear and friends: nothing here knows the package or its name of anything.
"""

import torch
from torch import nn
from torch.nn import functional

VOCAB, AWARE, DIM, SCENARIOS = (3, 5, 4), 2, 2, 4
WIDTHS = (6, 12, 6)


class Fields(nn.Module):
    """An embedding per field, side by side."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, DIM) for n in VOCAB)

    def forward(self, codes):
        return torch.cat([table(codes[:, f]) for f, table in enumerate(self.tables)], dim=1)


class PackedFields(nn.Module):
    """One table for all fields."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(sum(VOCAB), DIM)
        self.register_buffer("offsets", torch.tensor([0, 3, 8]), persistent=False)

    def forward(self, codes):
        return self.table(codes + self.offsets).flatten(1)


class SparseFields(PackedFields):
    """Gradients of the rows that were read."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(sum(VOCAB), DIM, sparse=True)


class DNN(nn.Module):
    """Embeddings and nn.Sequential, with operations in place; the logit is (B, 1)."""

    def __init__(self):
        super().__init__()
        self.fields = Fields()
        self.layers = nn.Sequential(
            nn.Linear(6, 12),
            nn.ReLU(inplace=True),
            nn.Linear(12, 6),
            nn.ReLU(True),
            nn.Linear(6, 1),
        )

    def forward(self, codes):
        return self.layers(self.fields(codes))


class FusedDNN(DNN):
    """Sigmoid and loss in one; a loss and a logit come out."""

    def __init__(self):
        super().__init__()
        self.criterion = nn.BCEWithLogitsLoss()

    def forward(self, codes, label=None):
        logit = super().forward(codes).squeeze(1)
        if label is None:
            return logit
        return {"loss": self.criterion(logit, label), "out": logit}


class Weighted(nn.Module):
    """nn.Linear whose weights are weighted row by row: variant r."""

    def __init__(self, d_in, d_out, d_r, d_c, d_k=2, hidden=4, detach=False):
        super().__init__()
        self.linear = nn.Linear(d_in, d_out)
        d_u = AWARE * DIM + d_in
        self.generator = nn.Sequential(
            nn.Linear(d_u, hidden), nn.ReLU(), nn.Linear(hidden, d_r * d_k)
        )
        self.share = nn.Parameter(torch.randn(d_k, d_c))
        self.shape, self.detach = (d_r, d_k), detach

    def core(self, e, h):
        u = torch.cat([e, h.detach() if self.detach else h], dim=1)
        return torch.sigmoid(self.generator(u).unflatten(1, self.shape) @ self.share)

    def forward(self, h, core):
        d_out, d_in = self.linear.weight.shape
        rows, columns = d_in // core.shape[1], d_out // core.shape[2]
        S = core.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
        return torch.einsum("bij,ji,bi->bj", S, self.linear.weight, h) + self.linear.bias


class MIDPG(nn.Module):
    """MI-DPG: the logit and, with partners, the regulariser."""

    def __init__(self, fields=Fields, detach=False):
        super().__init__()
        self.fields = fields()
        self.layers = nn.ModuleList(
            [Weighted(6, 12, 2, 6, detach=detach), Weighted(12, 6, 4, 3, detach=detach)]
        )
        self.head = nn.Linear(6, 1)
        self.critics = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 1)) for _ in self.layers
        )

    def forward(self, codes, partner=None):
        h = self.fields(codes)
        e = h[:, : AWARE * DIM]
        terms = []
        for layer, critic in zip(self.layers, self.critics, strict=True):
            core = layer.core(e, h)
            h = torch.relu(layer(h, core))
            if partner is not None:
                terms.append(self.term(critic, e, e[partner], core.flatten(1)))
        logit = self.head(h).squeeze(1)
        return logit if partner is None else (logit, {"mi": sum(terms) / len(terms)})

    def term(self, critic, e, negative, q):
        matching, shuffled = (critic(torch.cat([x, q], dim=1)) for x in (e, negative))
        return (functional.softplus(-matching) + functional.softplus(shuffled)).mean()


class Norm(nn.Module):
    """Partitioned normalisation with its moving statistics in buffers."""

    def __init__(self, eps=0.25):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))
        self.gammas = nn.Parameter(torch.ones(SCENARIOS, 6))
        self.betas = nn.Parameter(torch.zeros(SCENARIOS, 6))
        self.eps = eps
        self.keep(torch.zeros(SCENARIOS, 6), torch.ones(SCENARIOS, 6))

    def keep(self, mean, variance):
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)

    def statistics(self, x, scenario):
        """Mean and variance that every row is normalised by."""
        mean, variance = self.mean[scenario], self.variance[scenario]
        for d in scenario.unique() if self.training else ():
            own = scenario == d
            if own.sum() > 1:
                mu, nu = x[own].mean(0), x[own].var(0, correction=0)
                mean, variance = mean.clone(), variance.clone()
                mean[own], variance[own] = mu, nu
                self.move(d, mu.detach(), nu.detach())
        return mean, variance

    def move(self, d, mu, nu):
        self.mean[d] = 0.9 * self.mean[d] + 0.1 * mu
        self.variance[d] = 0.9 * self.variance[d] + 0.1 * nu

    def forward(self, x, scenario):
        mean, variance = self.statistics(x, scenario)
        scale, shift = self.gamma * self.gammas[scenario], self.beta + self.betas[scenario]
        return scale * (x - mean) / (variance + self.eps).sqrt() + shift


class Star(nn.Module):
    """One layer: shared weights times those of the scenario."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.shared = nn.Linear(d_in, d_out)
        self.weight = nn.Parameter(torch.ones(SCENARIOS, d_in, d_out))
        self.bias = nn.Parameter(torch.zeros(SCENARIOS, d_out))

    def forward(self, h, scenario):
        W = self.shared.weight.T * self.weight[scenario]
        return torch.einsum("bi,bij->bj", h, W) + self.shared.bias + self.bias[scenario]


class OwnStar(Star):
    """Weights of every scenario by themselves; those of an absent one are not touched."""

    def __init__(self, d_in, d_out):
        super().__init__(d_in, d_out)
        del self.weight
        self.own = nn.ParameterList(torch.ones(d_in, d_out) for _ in range(SCENARIOS))

    def forward(self, h, scenario):
        W = self.shared.weight.T
        rows = [row @ (W * self.own[d]) for row, d in zip(h, scenario.tolist(), strict=True)]
        return torch.stack(rows) + self.shared.bias + self.bias[scenario]


class STAR(nn.Module):
    """A star of layers on the normalised input, and a small network beside it."""

    def __init__(self, norm=Norm, star=Star):
        super().__init__()
        self.fields = Fields()
        self.norm = norm()
        self.layers = nn.ModuleList([star(6, 12), star(12, 6), star(6, 1)])
        self.domain = nn.Embedding(SCENARIOS, 3)
        self.small = nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 1))

    def forward(self, codes, scenario):
        x = self.fields(codes)
        h = self.norm(x, scenario)
        for i, layer in enumerate(self.layers):
            h = layer(torch.relu(h) if i else h, scenario)
        return h + self.small(torch.cat([self.domain(scenario), x], dim=1))


# --- wrong ones -----------------------------------------------------------------------------------


class ListDNN(nn.Module):
    """The hidden layers are kept in a Python list."""

    def __init__(self):
        super().__init__()
        self.fields = Fields()
        self.hidden = [nn.Linear(6, 12), nn.Linear(12, 6)]
        self.head = nn.Linear(6, 1)

    def forward(self, codes):
        h = self.fields(codes)
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return self.head(h)


class RepeatedDNN(nn.Module):
    """Two towers by scenario that are one, as [tower] * 2 gives them."""

    def __init__(self):
        super().__init__()
        self.fields = Fields()
        self.towers = nn.ModuleList([nn.Linear(6, 6)] * 2)
        self.head = nn.Linear(6, 1)

    def forward(self, codes):
        h = self.fields(codes)
        for tower in self.towers:
            h = torch.relu(tower(h))
        return self.head(h)


class OwnBatchNorm(Norm):
    """Predictions are normalised by the statistics of their batch."""

    def statistics(self, x, scenario):
        if self.training:
            return super().statistics(x, scenario)
        return x.mean(0), x.var(0, correction=0)


class BatchNorm(Norm):
    """nn.BatchNorm1d without moving statistics, in eval() too."""

    def __init__(self):
        super().__init__()
        self.plain = nn.BatchNorm1d(6, affine=False, track_running_stats=False)

    def forward(self, x, scenario):
        return super().forward(x, scenario) if self.training else self.plain(x)


class PlainNorm(Norm):
    """Moving statistics are plain attributes."""

    def keep(self, mean, variance):
        self.mean, self.variance = mean, variance


class UnsavedNorm(Norm):
    """Moving statistics are left out of the state dictionary."""

    def keep(self, mean, variance):
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("variance", variance, persistent=False)


class FrozenDNN(DNN):
    """A layer was frozen, and a table is looked up without gradient."""

    def __init__(self):
        super().__init__()
        self.layers[2].requires_grad_(False)

    def forward(self, codes):
        x = self.fields(codes)
        return self.layers(torch.cat([x[:, :4], x[:, 4:].detach()], dim=1))


class SortedDNN(DNN):
    """Rows are sorted for speed, and left so."""

    def forward(self, codes):
        return super().forward(codes)[codes[:, 1].argsort(stable=True)]


class SqueezedDNN(DNN):
    """squeeze() takes the batch of one along."""

    def forward(self, codes):
        return super().forward(codes).squeeze()


class NoisyDNN(DNN):
    """Dropout, which nobody switches off in prediction."""

    def forward(self, codes):
        return self.layers(functional.dropout(self.fields(codes), 0.5))


class SwitchingDNN(DNN):
    """Switches a part to eval() and forgets about it."""

    def forward(self, codes):
        self.layers.eval()
        return super().forward(codes)


class ShiftingFields(PackedFields):
    """Offsets are added to the caller's codes."""

    def forward(self, codes):
        codes += self.offsets
        return self.table(codes).flatten(1)
