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
# # From any flow to optimal transport, and density ratios along it
#
# A flow between three clusters and two is matched to independent pairs, then to the pairs that it makes
# itself, and corrected where classifiers see a difference ([QF]). Its path then leads a ratio of densities
# from one law to the other in steps that are easy each.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import measures, potentials, refinement, static
from wfr_flows.dynamics import Geometry, carry, potential_field, time_grid

SMOKE = bool(os.environ.get("WFR_SMOKE"))
STEPS, REFINEMENT, RATIO, POINTS = (10, 2, 10, 200) if SMOKE else (800, 150, 800, 20000)
WASSERSTEIN = Geometry(float("inf"), spherical=False)

# %%
first = measures.mixture(
    [0.3, 0.3, 0.4], [[-2.0, -2.0], [2.0, -2.0], [0.0, 2.5]], jnp.stack([0.6 * jnp.eye(2)] * 3)
)
last = measures.mixture(
    [0.5, 0.5], [[-2.5, 1.0], [2.5, 1.0]], [[[0.8, 0.3], [0.3, 0.6]], [[0.8, -0.3], [-0.3, 0.6]]]
)
keys = jax.random.split(jax.random.key(0), 8)
source, target = first.sample(keys[0], POINTS), last.sample(keys[1], POINTS)
field = potential_field(potentials.mlp(2), WASSERSTEIN)
learn = partial(
    refinement.refine,
    field=field,
    geometry=WASSERSTEIN,
    ratio=potentials.mlp(2),
    draw=refinement.between(source, target),
    matching_steps=STEPS,
)
flows = {"matched": learn(keys[2], rounds=0, refinement_steps=0)}
flows["refined"] = learn(
    keys[3],
    start=flows["matched"],
    rounds=1,
    refinement_steps=REFINEMENT,
    pairs=jax.jit(partial(refinement.flow_pairs, field, WASSERSTEIN))(flows["matched"], source, target),
)

# %% [markdown]
# Paths of both flows, and their costs beside the certified optimum between samples of 1000 points.

# %%
some = [measures.thinned(k, m, 1000) for k, m in zip(keys[4:6], (source, target), strict=True)]
optimum = 2 * float(jax.jit(static.wasserstein)(*some).value)
take = jax.jit(partial(carry, field, WASSERSTEIN))
figure = Figure(figsize=(9, 4.4), layout="constrained")
for axis, (name, params) in zip(figure.subplots(1, 2, sharex=True, sharey=True), flows.items(), strict=True):
    path = take(params, some[0], time_grid(32))
    lines = np.asarray(path.position[:, :200])
    axis.plot(lines[..., 0], lines[..., 1], color="C0", linewidth=0.5, alpha=0.6)
    axis.scatter(*np.asarray(some[1].position).T, s=3, color="0.6", label="target")
    axis.scatter(*np.asarray(path.position[-1]).T, s=3, color="C3", label="arrived")
    cost = float(refinement.transport_cost(path, WASSERSTEIN))
    axis.set_title(f"{name}: cost {cost:.2f}, optimum {optimum:.2f}")
    axis.set_aspect("equal")
axis.legend(loc="lower right")
show(figure, "refinement_paths")

# %%
_, error = refinement.round_trip(field, WASSERSTEIN, flows["refined"], some[0])
print("there and back, largest error:", float(error.max()))

# %% [markdown]
# The logarithm of the ratio of both densities: exact, learned along the refined flow, and the difference
# where either density is above e⁻⁷.

# %%
times = jnp.linspace(0.0, 1.0, 9)
bridge = refinement.flow_bridge(
    field, WASSERSTEIN, flows["refined"], source, target, times, batch=256, noise=0.5
)
network = potentials.total(potentials.moving_quadratic(2, degree=2), potentials.mlp(2))
log_ratio, learned = refinement.fit_ratio(keys[6], network, times, bridge, num_steps=RATIO)
side = jnp.linspace(-5.0, 5.0, 81)
x = jnp.stack(jnp.meshgrid(side, side, indexing="xy"), axis=-1).reshape(-1, 2)
log_p, log_q = (jax.vmap(law.log_density)(x) for law in (first, last))
found = jax.jit(jax.vmap(log_ratio, (None, 0)))(learned, x)
apart = jnp.where(jnp.maximum(log_p, log_q) > -7, found - (log_q - log_p), jnp.nan)
figure = Figure(figsize=(12, 3.6), layout="constrained")
shown = {"exact": (log_q - log_p, 20.0), "learned": (found, 20.0), "difference": (apart, 2.0)}
for axis, (name, (values, bound)) in zip(figure.subplots(1, 3), shown.items(), strict=True):
    image = axis.pcolormesh(side, side, values.reshape(81, 81), vmin=-bound, vmax=bound, cmap="RdBu_r")
    figure.colorbar(image, ax=axis)
    axis.set_title(name)
    axis.set_aspect("equal")
show(figure, "refinement_ratio")
