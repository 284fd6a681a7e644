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
# # Generative flows that are well-posed on manifolds
#
# A pinwheel in two of seven coordinates, and the W₁⊕W₂ proximal flow from noise to it ([W1W2]): kinetic cost
# and a divergence over critics of slope at most 1. Straight lines of optimal assignments are the start.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import measures, potentials, proximal
from wfr_flows.dynamics import Geometry, carry, potential_field, time_grid

SMOKE = bool(os.environ.get("WFR_SMOKE"))
DIM, KINETIC = 7, 0.02
START, STEPS, BATCH, POINTS = (20, 2, 16, 50) if SMOKE else (12000, 500, 1024, 20000)

# %%
WASSERSTEIN = Geometry(jnp.inf)
keys = jax.random.split(jax.random.key(0), 4)
flat = 0.7 * measures.pinwheel().spread(keys[0], POINTS).position
data = measures.equally_weighted(jnp.pad(flat, ((0, 0), (0, DIM - 2))))
potential = potentials.arrival(potentials.mlp(DIM, width=48), DIM)
critic = potentials.smooth_critic(DIM, width=48)
field = potential_field(potential, WASSERSTEIN)
infos = []
state = proximal.fit(
    keys[1],
    field,
    WASSERSTEIN,
    critic,
    measures.standard_normal(DIM),
    measures.empirical(data),
    start_steps=START,
    steps=STEPS,
    straighten_steps=START // 2,
    batch=BATCH,
    num_lines=50 if SMOKE else 20300,
    kinetic_weight=KINETIC,
    residual_weight=0.5,
    on_chunk=lambda chunk: infos.append(chunk.info.outer_info),
)

# %% [markdown]
# Samples with 1, 5 and 64 Euler steps: the same, since paths are straight. Training draws the number of steps
# anew at every update, and puts a weight on the bend of the paths.

# %%
noise = measures.standard_normal(DIM).sample(keys[2], POINTS // 10)
move = jax.jit(partial(carry, field, WASSERSTEIN, solver=proximal.EULER))
carried = {n: move(state.average, noise, time_grid(n)) for n in (1, 5, 64)}
figure = Figure(figsize=(13, 3.4), layout="constrained")
axes = figure.subplots(1, 4, sharex=True, sharey=True)
axes[0].scatter(*np.asarray(flat[: POINTS // 10]).T, s=1, color="black")
axes[0].set_title("data")
for axis, (n, each) in zip(axes[1:], carried.items(), strict=True):
    axis.scatter(*np.asarray(each.position[-1, :, :2]).T, s=1)
    axis.set_title(f"{n} step{'s' if n > 1 else ''}")
for axis in axes:
    axis.set_aspect("equal")
show(figure, "proximal_samples")

# %% [markdown]
# Paths in one coordinate of the plane and one beside it, the terms of the objective, and the conditions of
# optimality.

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
path = np.asarray(carried[64].position[:, :40])
left.plot(path[:, :, 0], path[:, :, 2], color="C0", linewidth=0.5)
left.scatter(path[-1, :, 0], path[-1, :, 2], s=6, color="C3", zorder=3)
left.set_xlabel("in the plane")
left.set_ylabel("beside it")
terms = jax.tree.map(lambda *leaves: np.concatenate(leaves), *infos)
for name in terms._fields:
    right.plot(getattr(terms, name), label=name, linewidth=0.8)
right.set_xlabel("step")
right.set_yscale("symlog", linthresh=1e-2)
right.legend()
show(figure, "proximal_paths")

# %%
look = jax.jit(partial(proximal.diagnose, potential, WASSERSTEIN, critic, kinetic_weight=KINETIC))
found = look(state.average, state.inner, keys[3], noise, data)
off = float(jnp.sqrt(jnp.mean(carried[5].position[-1, :, 2:] ** 2)))
print(
    {name: round(float(value), 4) for name, value in found._asdict().items()}, "off the plane:", round(off, 5)
)
