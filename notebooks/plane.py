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
# # Weighted generation in the plane
#
# Eight Gaussians and two moons, learned from samples and generated from N(0, I) at a finite alpha: figure 6
# of [WFR]. Generated samples carry weights; resampled, they need none.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
from common import show
from matplotlib.figure import Figure

from wfr_flows import Geometry, geodesics, measures, metrics, plotting, potentials
from wfr_flows.dynamics import flow, time_grid

SMOKE = bool(os.environ.get("WFR_SMOKE"))
ALPHA = 10.0
FIT = (
    {"num_pairs": 100, "matching_steps": 50, "refinement_steps": 2, "batch": 64, "num_steps": 2}
    if SMOKE
    else {"matching_weight": 1.0}
)
PARTICLES = 200 if SMOKE else 10_000

normal = measures.standard_normal(2)
potential, geometry = potentials.resnet(2, width=64), Geometry(ALPHA)
keys = iter(jax.random.split(jax.random.key(0), 64))

# %% [markdown]
# ## Data, generated samples, their distance
#
# The squared sliced Wasserstein distance to fresh samples, beside that between two sets of fresh samples: the
# floor that no generator can pass.

# %%
generate = jax.jit(partial(geodesics.generate, potential, geometry))
distance = jax.jit(metrics.sliced_wasserstein)
figure = Figure(figsize=(10, 9), layout="constrained")
axes = figure.subplots(2, 2)
learned = {}
for row, name in zip(axes, ("eight-gaussians", "moons"), strict=True):
    law = measures.BUILTIN[name]()
    learned[name] = params = geodesics.fit(next(keys), potential, geometry, law, normal, **FIT)
    generated = generate(params, normal.sample(next(keys), PARTICLES))
    fresh, other = (law.sample(next(keys), PARTICLES) for _ in range(2))
    size = generated.effective_sample_size
    print(f"{name}: effective sample size {size:.0f} of {PARTICLES}")
    print(f"  to fresh samples {distance(next(keys), generated, fresh):.5f}")
    print(f"  between fresh sets {distance(next(keys), other, fresh):.5f}")
    for axis, cloud, title in ((row[0], fresh, "data"), (row[1], generated, "generated, area by weight")):
        axis.scatter(*cloud.position.T, s=PARTICLES * cloud.weight, alpha=0.3, linewidths=0)
        axis.set(title=f"{name}: {title}", aspect="equal")
show(figure, "plane")

# %% [markdown]
# ## Paths and weights
#
# The potential of the eight Gaussians, forward from the data and in reverse from N(0, I).

# %%
carry = jax.jit(partial(flow, potential, geometry))
law, params = measures.eight_gaussians(), learned["eight-gaussians"]
figure = plotting.geodesic(
    carry(params, law.sample(next(keys), PARTICLES // 4), time_grid(16)),
    carry(params, normal.sample(next(keys), PARTICLES // 4), time_grid(16, reverse=True)),
)
show(figure, "plane-paths")

# %% [markdown]
# ## Modes
#
# The mass of each of the eight, from weights alone; the truth is 0.125.

# %%
generated = generate(params, normal.sample(next(keys), PARTICLES))
angle = jnp.arctan2(generated.position[:, 1], generated.position[:, 0])
mode = jnp.round(8 * angle / (2 * jnp.pi)).astype(int) % 8
print(jnp.zeros(8).at[mode].add(generated.weight))
