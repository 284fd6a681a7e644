"""Flows by matching on pairs: independent, optimal, or what a flow before has joined."""

import jax
import jax.numpy as jnp

from wfr_flows import static
from wfr_flows.dynamics import Field, Geometry, Rates, Trajectory, carry, time_grid
from wfr_flows.geodesics import Chain, Loss, chain_matching
from wfr_flows.measures import Particles, resample
from wfr_flows.static import Diracs
from wfr_flows.typing import Array, Float, Key, Params


def independent_pairs(key: Key, source: Particles, target: Particles, num_pairs: int) -> Diracs:
    """Pairs drawn independently at both ends, in proportion to the weights: the product coupling.

    Each carries its share of either mass.
    """
    source_key, target_key = jax.random.split(key)
    first = resample(source_key, source, num_pairs)
    last = resample(target_key, target, num_pairs)
    return Diracs(first.position, last.position, first.weight * source.mass, last.weight * target.mass)


def flow_pairs(
    field: Field,
    geometry: Geometry,
    params: Params,
    source: Particles,
    target: Particles,
    *,
    num_steps: int = 16,
) -> Diracs:
    """What a flow joins: the source with where it goes, and the target with where it comes from.

    Both halves count half. Where the flow misses an end, one of them has it right.

    Args:
      field, geometry, params: the flow.
      source, target: weighted particles at times 0 and 1.
      num_steps: Runge-Kutta steps.
    """
    there = carry(field, geometry, params, source, time_grid(num_steps))
    back = carry(field, geometry, params, target, time_grid(num_steps, reverse=True))
    return joined(there, back)


def joined(there: Trajectory, back: Trajectory) -> Diracs:
    """The ends of trajectories from time 0 to 1, and of others from 1 to 0, half of the mass each."""
    first, last = (_halves(there.at(i), back.at(-1 - i)) for i in (0, -1))
    return Diracs(first.position, last.position, first.weight, last.weight)


def flow_matching(
    field: Field, geometry: Geometry, pairs: Diracs, *, num_times: int = 32, num_pairs: int = 64
) -> Loss:
    """The loss whose minimiser carries one end of the pairs to the other, without simulation.

    ``½ E m|v_θ(t, x(t)) - ẋ(t)|² + ½alpha E m (g_θ - ṁ/m)²`` over random times and pairs, each a travelling
    Dirac, at ``alpha = inf`` on a straight line (Lipman et al., 2023). The minimiser among all fields, and
    the one among potentials, both take one end to the other: ``∇·(ρv) - ρg`` is the same. A potential leaves
    out what only rotates, and a Dirac takes the cheapest way, so a flow matched to the pairs of another never
    costs more (Liu, 2022); where nothing is left to save, it is optimal. Pairs out of reach die and are born.

    Args:
      field, geometry: of the flow.
      pairs: of any coupling, see `independent_pairs`, `flow_pairs` and `static.semi_coupling`.
      num_times, num_pairs: as in `geodesics.chain_matching`.
    """
    pairs = _within_reach(pairs, geometry)
    cost = jax.jit(static.coupling_cost)(pairs, geometry.alpha)[None]
    window = jax.tree.map(lambda leaf: leaf[None], pairs)
    chain = Chain(jnp.arange(2, dtype=pairs.source.dtype), window, cost, cost, cost >= 0)
    return chain_matching(_without_energy(field), geometry, chain, num_times=num_times, num_pairs=num_pairs)


def _halves(a: Particles, b: Particles) -> Particles:
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), a, b)
    return both._replace(log_weight=both.log_weight - jnp.log(2.0))


def _within_reach(pairs: Diracs, geometry: Geometry) -> Diracs:
    """Pairs too far apart to travel as one that dies and one that is born."""
    if geometry.balanced:
        return pairs
    squared = jnp.sum((pairs.source - pairs.target) ** 2, axis=1)
    near = squared * geometry.inverse_alpha < jnp.pi**2
    none = jnp.zeros_like(pairs.source_mass)
    travelling = Diracs(
        pairs.source,
        jnp.where(near[:, None], pairs.target, pairs.source),
        pairs.source_mass,
        jnp.where(near, pairs.target_mass, 0.0),
    )
    born = Diracs(pairs.target, pairs.target, none, jnp.where(near, 0.0, pairs.target_mass))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), travelling, born)


def _without_energy(field: Field) -> Field:
    """Pairs that are not optimal do not obey the Hamilton-Jacobi equation."""

    def rates(params: Params, t: Array, x: Float[Array, " d"]) -> Rates:
        return field.rates(params, t, x)._replace(energy=None)

    return Field(field.init, rates)
