"""The list of all experts of a level, and which of them a gate may mix (derivations 5.1).

Expert e of scenario k stands at place k m_k + e, the shared experts after all specific ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.layers.groups import Groups


@dataclass(frozen=True)
class Candidates:
    """Places in the list of all experts.

    Parameters
    ----------
    n_scenarios : int
        Number of scenarios D.
    n_specific : int
        Experts m_k of each scenario.
    n_shared : int
        Experts m_s of all scenarios together.
    """

    n_scenarios: int
    n_specific: int
    n_shared: int

    @property
    def n_all(self) -> int:
        """Experts of a level, D m_k + m_s."""
        return self.n_scenarios * self.n_specific + self.n_shared

    @property
    def n_own(self) -> int:
        """Candidates of one scenario, m_k + m_s."""
        return self.n_specific + self.n_shared

    def places(self, k: int) -> tuple[slice, slice]:
        """Return the places of the experts of scenario k, and those of the shared ones."""
        first = k * self.n_specific
        return slice(first, first + self.n_specific), self._shared

    @property
    def _shared(self) -> slice:
        return slice(self.n_all - self.n_shared, self.n_all)

    def of_scenario(self, S: Array, k: int) -> Array:
        """Return S^k, the candidates of scenario k (derivations 5.1b).

        Backward: ``add_to``.

        Shapes
        ------
        S : (B, E, q)
            E = D m_k + m_s experts.
        S_k : (B, C, q)
            C = m_k + m_s candidates.
        """
        return get_xp(S).concatenate([S[:, places] for places in self.places(k)], axis=1)

    def add_to(self, dS: Array, k: int, dS_k: Array) -> None:
        """Add the adjoint of S^k to that of S, in place; shared experts collect from every k.

        See derivations 5.3d.
        """
        own, shared = self.places(k)
        dS[:, own] += dS_k[:, : self.n_specific]
        dS[:, shared] += dS_k[:, self.n_specific :]

    def of_own_rows(self, S: Array, groups: Groups) -> Array:
        """Return for each row the candidates of its own scenario (B, C, q), rows sorted.

        See derivations 5.1b.
        """
        return kernels.take_candidates(S, self.own_places(groups))

    def of_own_rows_backward(
        self, dS_own: Array, groups: Groups, onto: Array | None = None
    ) -> Array:
        """Return ``dS``, or ``onto`` with dS added in place (derivations 5.3d).

        An expert of scenario k hears from the rows of k only.
        """
        dS = onto
        if dS is None:
            shape = (dS_own.shape[0], self.n_all, dS_own.shape[2])
            dS = get_xp(dS_own).zeros(shape, dtype=dS_own.dtype)
        return kernels.give_candidates(dS_own, self.own_places(groups), dS)

    def own_places(self, groups: Groups) -> Array:
        """Return (B, C): where in the list the candidates of each sorted row stand."""
        xp, first = get_xp(groups.ids), groups.scenario[:, None] * self.n_specific
        own = first + xp.arange(self.n_specific)
        shared = xp.zeros_like(first) + xp.arange(self.n_all - self.n_shared, self.n_all)
        return xp.concatenate([own, shared], axis=1)

    def is_own(self, groups: Groups) -> Array:
        """Return (B, E): whether a sorted row shares its scenario with an expert, or all do."""
        xp = get_xp(groups.ids)
        place = xp.arange(self.n_all)
        is_shared = place >= self.n_all - self.n_shared
        return (place // self.n_specific == groups.scenario[:, None]) | is_shared


def own_rows(G: Array, groups: Groups) -> Array:
    """Of D streams those rows that belong to the stream's own scenario (derivations 5.1d).

    Backward: ``own_rows_backward``; a stream hears from its own rows only.

    Shapes
    ------
    G : (D, B, q) or (1, B, q)
        Rows sorted by scenario; one stream for every scenario, or the same for all.
    g : (B, q)
    """
    if G.shape[0] == 1:
        return G[0]
    return G[groups.scenario, get_xp(G).arange(G.shape[1])]


def own_rows_backward(dg: Array, groups: Groups, n_streams: int | None = None) -> Array:
    """Return ``dG`` (n_streams, B, q), zero outside the own rows; None is D streams.

    See derivations 5.3a.
    """
    if n_streams == 1:
        return dg[None]
    xp = get_xp(dg)
    dG = xp.zeros((groups.n_scenarios, *dg.shape), dtype=dg.dtype)
    dG[groups.scenario, xp.arange(len(dg))] = dg
    return dG
