# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A population that moves and grows
#
# Snapshots of a population at several times show neither who went where nor who multiplied. Unbalanced
# optimal transport between them decides: moving has a price, and so has growing. This notebook goes from
# points to velocity and growth, first with one potential, then with free networks.
#
# `wfr-flows snapshots` does all of this on a file.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
from common import show

from wfr_flows import Geometry, dynamics, geodesics, measures, plotting, potentials, static

SMOKE = bool(os.environ.get("WFR_SMOKE"))
STEPS, SIZE = (30, 30) if SMOKE else (2000, 200)
keys = iter(jax.random.split(jax.random.key(0), 32))

# %% [markdown]
# ## The population
#
# One kind walks along an arc and doubles at every step; the other stays where it is, and keeps its number.


# %%
def snapshot(key, time):
    walkers, others = SIZE * 2**time // 4, SIZE // 2
    angle = 0.6 * time
    place = jnp.concatenate(
        [
            jnp.tile(2 * jnp.array([jnp.cos(angle), jnp.sin(angle)]), (walkers, 1)),
            jnp.tile(jnp.array([-1.5, 0.0]), (others, 1)),
        ]
    )
    return place + 0.15 * jax.random.normal(key, place.shape)


positions = [snapshot(next(keys), time) for time in range(4)]
table = measures.equally_weighted(jnp.concatenate(positions))
times = jnp.repeat(jnp.arange(4.0), jnp.array([len(p) for p in positions]))
data = measures.by_time(table, times)
print("masses, relative to the first:", [f"{float(m.mass):.2f}" for m in data.measure])

# %% [markdown]
# ## Certified plans
#
# Between neighbours, what travels where, and what grows. The bounds hold whatever happened inside.

# %%
geometry = Geometry(4.0, spherical=False)
chain = geodesics.chain(next(keys), data.time, data.measure, geometry)
for index, (lower, upper) in enumerate(zip(chain.lower, chain.upper, strict=True)):
    print(f"from {index} to {index + 1}: d² in [{lower:.4f}, {upper:.4f}]")

# %% [markdown]
# ## Two ways to say how things move
#
# A potential has one number at every place: its slope is the velocity, its value the growth. That is what a
# geodesic does. Free networks can do anything, also what costs more. Windows are learned apart, because a
# geodesic through snapshots turns at every one of them.

# %%
fields = {
    "potential": dynamics.potential_field(potentials.mlp(2), geometry),
    "free": dynamics.free_field(2),
}
carried = {}
for name, one in fields.items():
    field = dynamics.windowed(one, chain.time)
    params = geodesics.fit_chain(
        next(keys), field, geometry, chain, data.measure, matching_steps=STEPS, refinement_steps=STEPS // 20
    )
    push = jax.jit(partial(geodesics.push, field, geometry))
    path = push(params, data.measure[0], chain.time)
    actions = geodesics.window_actions(field, geometry, params, path, 3)
    carried[name] = field, params, path
    print(f"{name}: action {jnp.sum(actions):.4f}, certified {jnp.sum(chain.upper):.4f}")
    for index, measure in enumerate(data.measure[1:], start=1):
        there = path.at(17 * index - 1)
        distance = static.wasserstein_1(there.normalise(), measure.normalise()).value
        print(f"  time {index}: W₁ {distance:.4f}, mass {there.mass:.3f} of {measure.mass:.3f}")

# %% [markdown]
# ## One picture
#
# Snapshots, paths of the first through time, and growth at every point, from the potential.

# %%
field, params, path = carried["potential"]
rates = jax.jit(dynamics.batched(field))
growth = jnp.concatenate(
    [
        rates(params, jnp.clip(time, 0.01, 2.99), measure.position).growth
        for time, measure in zip(data.time, data.measure, strict=True)
    ]
)
show(plotting.snapshots(data, path, table.position, growth), "snapshots")
