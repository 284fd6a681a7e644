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
# # Gradient flows from samples alone
#
# Variational JKO ([VWGF]): every step is a saddle point over a map and a ratio of densities. The porous
# medium equation on the line, a mixture from its unnormalised density, the ring of an aggregation equation,
# and the pulses of aggregation against diffusion.

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import show
from matplotlib.figure import Figure

from wfr_flows import gradient_flows, measures, potentials, training
from wfr_flows.gradient_flows import FreeEnergy

SMOKE = bool(os.environ.get("WFR_SMOKE"))
PARTICLES = 100 if SMOKE else 4000
ITERATIONS = 2 if SMOKE else 150
START = 2 if SMOKE else 500
BATCH = 50 if SMOKE else 1024


def flow(method, cloud, step_size, num):
    """The last state and all infos."""

    @jax.jit
    def run(key):
        start_key, flow_key = jax.random.split(key)
        start = method.init((start_key, cloud))
        return gradient_flows.evolve(method, flow_key, start, jnp.full(num, step_size))

    return run(jax.random.key(0))


# %% [markdown]
# ## Porous medium
#
# From Barenblatt's profile at t = .002, steps of .001. The maps are gradients of convex networks, so that the
# density is known along the flow. Beside it exact steps of the same size, and the exact solution: between the
# latter two is the error of the time step.

# %%
steps = 2 if SMOKE else 25
law, radius = measures.barenblatt(1, 2.0, 0.002), measures.barenblatt_radius(1, 2.0, 0.002)
potential = potentials.icnn(1, width=16)
method = gradient_flows.variational_jko(
    FreeEnergy(gradient_flows.power_entropy(2.0)),
    gradient_flows.gradient_of(potential),
    gradient_flows.log_ratio(1, width=16, link=gradient_flows.softplus),
    num_iterations=ITERATIONS,
    start_steps=4 * START,
    batch=BATCH,
    average_decay=0.95,
)
_, info = flow(method, law.spread(jax.random.key(1), PARTICLES), 1e-3, steps)

edge = jnp.linspace(-radius, radius, 41 if SMOKE else 201)
share = edge / radius
cells = gradient_flows.Cells(edge, jnp.diff(0.5 + 0.75 * (share - share**3 / 3)))
step = jax.jit(lambda c: gradient_flows.line_jko(c, 1e-3, m=2.0)[0])
x = jnp.linspace(-0.9999 * radius, 0.9999 * radius, 400)[:, None]
sample = gradient_flows.Sample(measures.equally_weighted(x), jax.vmap(law.log_density)(x))
figure = Figure(figsize=(7, 4), layout="constrained")
axis = figure.subplots()
for k in range(1, steps + 1):
    cells = step(cells)
    if k in {1, 5, steps}:
        moves = jax.tree.map(lambda leaf, k=k: leaf[:k], info.move)
        maps = gradient_flows.convex_maps(moves)
        (end, _), log_rho = gradient_flows.carry(potential, maps, sample)
        grid = jnp.linspace(-0.7, 0.7, 801)
        time = 0.002 + k * 1e-3
        exact = jnp.exp(jax.vmap(measures.barenblatt(1, 2.0, time).log_density)(grid[:, None]))
        (line,) = axis.plot(end[:, 0], jnp.exp(log_rho), label=f"variational JKO, t = {time:.3f}")
        axis.plot(grid, cells.density_at(grid), "--", color=line.get_color(), lw=1)
        axis.plot(grid, exact, ":", color=line.get_color(), lw=1)
axis.set(xlabel="x", ylabel="density", title="learned (full), exact steps (dashed), exact solution (dotted)")
axis.legend()
show(figure, "porous-medium")

# %% [markdown]
# ## A mixture from its unnormalised density
#
# Nine Gaussians in the plane, from N(0, 2.25 I): all particles after some of the steps.

# %%
centres = np.random.RandomState(0).uniform(-3, 3, (9, 2))
target = measures.mixture(jnp.ones(9), centres, jnp.tile(0.2 * jnp.eye(2), (9, 1, 1)))
method = gradient_flows.variational_jko(
    FreeEnergy(gradient_flows.entropy(), lambda x: -target.log_density(x)),
    gradient_flows.residual(2, width=64, depth=2),
    gradient_flows.log_ratio(2, width=64, depth=2),
    num_iterations=2 * ITERATIONS,
    start_steps=1,
    batch=BATCH,
    average_decay=0.95,
    map_optimiser=partial(training.cosine_adam, learning_rate=1e-2),
    ratio_optimiser=partial(training.cosine_adam, learning_rate=1e-2),
)
start = measures.gaussian(jnp.zeros(2), 2.25 * jnp.eye(2)).spread(jax.random.key(2), PARTICLES)
steps = 2 if SMOKE else 12
state, info = flow(method, start, 0.3, steps)
_, path = gradient_flows.push(
    FreeEnergy(potential=lambda x: x[0]),
    gradient_flows.residual(2, width=64, depth=2),
    info.move,
    start.position,
)
figure = Figure(figsize=(13, 3.6), layout="constrained")
shown = [("start", start.position), *((f"step {k}", path[k - 1]) for k in (1, 4, steps) if k <= steps)]
shown.append(("target", target.sample(jax.random.key(3), PARTICLES).position))
for axis, (title, cloud) in zip(figure.subplots(1, len(shown)), shown, strict=True):
    axis.scatter(*cloud.T, s=1, alpha=0.4)
    axis.set(title=title, aspect="equal", xlim=(-5, 5), ylim=(-5, 5))
show(figure, "mixture-flow")
print("free energy (0 at the target):", info.energy)

# %% [markdown]
# ## The ring
#
# W = |x|⁴/4 - |x|²/2 from N(0, I/4), the explicit push by the whole cloud. The steady radius is 3^(-1/2).
# Energy depends on moments up to the fourth alone, so that uneven laws on the circle are steady as well.
# Noise of mini-batches adds up along them; the explicit push has none.

# %%
ring = FreeEnergy(interaction=lambda z: 0.25 * jnp.sum(z**2) ** 2 - 0.5 * jnp.sum(z**2))
method = gradient_flows.variational_jko(
    ring, gradient_flows.affine(2), num_iterations=1, batch=None, forward_backward=True
)
cloud = measures.gaussian(jnp.zeros(2), 0.25 * jnp.eye(2)).spread(jax.random.key(4), PARTICLES // 2)
figure = Figure(figsize=(9, 3.4), layout="constrained")
for axis, num in zip(figure.subplots(1, 3), (2, 2, 2) if SMOKE else (20, 60, 200), strict=True):
    state, _ = flow(method, cloud, 0.05, num)
    axis.scatter(*state.particles.position.T, s=1)
    axis.set(title=f"t = {0.05 * num:g}", aspect="equal", xlim=(-1, 1), ylim=(-1, 1))
radius = jnp.linalg.norm(state.particles.position - state.particles.position.mean(axis=0), axis=1)
print(f"radius {radius.mean():.4f} (exact {3**-0.5:.4f}), deviation {radius.std():.4f}")
show(figure, "ring")

# %% [markdown]
# ## Aggregation against diffusion
#
# ∂tρ = ∇·(ρ∇W*ρ) + 0.1 Δρ³ with W = -exp(-|x|²)/π from mass 9 spread evenly on [-3, 3]²: four pulses, then
# one. For the law of mass 1 that is 9 W with 8.1 Δρ³.

# %%
pulses = FreeEnergy(
    gradient_flows.power_entropy(3.0, 8.1, reference=gradient_flows.gaussian_reference(1.3)),
    interaction=lambda z: -9 * jnp.exp(-jnp.sum(z**2)) / jnp.pi,
)
method = gradient_flows.variational_jko(
    pulses,
    gradient_flows.residual(2, width=32, depth=2),
    gradient_flows.log_ratio(2, width=32, depth=3, link=gradient_flows.softplus),
    forward_backward=True,
    num_iterations=max(2, ITERATIONS * 2 // 3),
    batch=BATCH,
    start_steps=START,
    average_decay=0.95,
)
uniform = measures.uniform_box(jnp.full(2, -3.0), jnp.full(2, 3.0)).spread(jax.random.key(5), PARTICLES)
every = 1 if SMOKE else 12
state, energies = method.init((jax.random.key(6), uniform)), []
advance = jax.jit(lambda key, state: gradient_flows.evolve(method, key, state, jnp.full(every, 0.25)))
figure = Figure(figsize=(13, 3), layout="constrained")
for stop, axis in enumerate(figure.subplots(1, 5), start=1):
    state, info = advance(jax.random.key(10 + stop), state)
    energies.append(info.energy)
    axis.hist2d(*np.asarray(state.particles.position).T, bins=50, range=[[-3.2, 3.2]] * 2)
    axis.set(title=f"t = {0.25 * every * stop:g}", aspect="equal")
show(figure, "pulses")
print("energy:", jnp.concatenate(energies)[:: max(1, every // 2)])
