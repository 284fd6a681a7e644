"""Aggregation by variational JKO: the ring, the semicircle law, and four pulses that become one.

Ring: W = |x|⁴/4 - |x|²/2 in the plane from N(0, I/4). For points on a circle about their mean with isotropic
second moments the force at radius r is r (3 r² - 1), so that the steady radius is 3^(-1/2). Energy depends on
moments alone: many laws on that circle are steady, and nothing but the scheme keeps the angles even. What
keeps the joint scheme on the circle is a small rate of learning: every step begins with a step of Adam of
that size in all parameters of a map that is nearly right.
"angle_unevenness" is the standard deviation of twelve shares of angles over their mean.

Semicircle: W = |x|²/2 - log|x| on the line from N(0, 1), by the joint scheme, towards (1/π)√(2 - x²).

Pulses: W = -exp(-|x|²)/π with 0.1 Δρ³ from mass 9 spread evenly on [-3, 3]², by the forward-backward scheme;
for the law of mass 1 that is 9 W with 8.1 Δρ³. (Mass 1 with W itself takes nine times as long.) The single
pulse solves 12.15 ρ² = c - 9 W*ρ where ρ > 0; "exact_energy" is its, by iteration on a grid.
"peaks" counts local maxima above a tenth of the highest of a histogram of cells of 0.3, smoothed by 0.3.
``--figures`` draws them and the energy.
"""

import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import brentq
from scipy.signal import fftconvolve

from benchmarks.common import parser, report, rounded
from wfr_flows import gradient_flows, measures, training
from wfr_flows.gradient_flows import FreeEnergy

RING = FreeEnergy(interaction=lambda z: 0.25 * jnp.sum(z**2) ** 2 - 0.5 * jnp.sum(z**2))
SEMICIRCLE = FreeEnergy(interaction=lambda z: 0.5 * jnp.sum(z**2) - jnp.log(jnp.abs(z[0])))
PULSES = FreeEnergy(
    gradient_flows.power_entropy(3.0, 8.1, reference=gradient_flows.gaussian_reference(1.3)),
    interaction=lambda z: -9 * jnp.exp(-jnp.sum(z**2)) / jnp.pi,
)


def run(method, key: jax.Array, cloud: measures.Particles, step_size: float, num: int, stops: int):
    """At even times: particles, energies of all steps until then, the last info, CPU seconds."""
    advance = jax.jit(
        lambda key, state: gradient_flows.evolve(method, key, state, jnp.full(num // stops, step_size))
    )
    state = jax.jit(method.init)((key, cloud))
    energies = np.zeros(0)
    begin = time.process_time()
    for stop in range(1, stops + 1):
        state, info = jax.block_until_ready(advance(jax.random.fold_in(key, stop), state))
        energies = np.concatenate([energies, info.energy])
        seconds = time.process_time() - begin
        yield stop * (num // stops) * step_size, state.particles, energies, info, seconds


def ring(explicit: bool, batch: int | None, size: int, num: int, iterations: int):
    method = gradient_flows.variational_jko(
        RING,
        gradient_flows.residual(2, width=32, depth=2),
        num_iterations=1 if explicit else iterations,
        inner_steps=1,
        batch=batch,
        forward_backward=explicit,
        map_optimiser=partial(training.cosine_adam, learning_rate=1e-3),
    )
    cloud = measures.gaussian(jnp.zeros(2), 0.25 * jnp.eye(2)).spread(jax.random.key(0), size)
    for moment, particles, energies, _, seconds in run(method, jax.random.key(1), cloud, 10 / num, num, 2):
        centred = np.asarray(particles.position - particles.position.mean(axis=0))
        radius = np.linalg.norm(centred, axis=1)
        shares = np.histogram(np.arctan2(*centred.T), 12, (-np.pi, np.pi))[0] / size
        yield {
            "time": moment,
            "mean_radius": float(radius.mean()),
            "exact_radius": 3**-0.5,
            "radial_deviation": float(radius.std()),
            "angle_unevenness": float(12 * shares.std()),
            "energy": float(energies[-1]),
            "exact_energy": -1 / 12,
            "energy_decreases": bool(np.all(np.diff(energies) < 1e-6)),
            "cpu_seconds_with_compilation": seconds,
        }


def semicircle(size: int, num: int, iterations: int):
    method = gradient_flows.variational_jko(
        SEMICIRCLE,
        gradient_flows.residual(1, width=32, depth=2),
        num_iterations=iterations,
        inner_steps=1,
        batch=None,
        map_optimiser=partial(training.cosine_adam, learning_rate=1e-2),
    )
    level = (jnp.arange(size) + 0.5) / size
    cloud = measures.equally_weighted(jax.scipy.special.ndtri(level)[:, None])
    # F(√2 sin s) = ½ + (s + sin s cos s)/π
    angle = np.linspace(-np.pi / 2, np.pi / 2, 100_001)
    quantile = np.interp(
        level, 0.5 + (angle + np.sin(angle) * np.cos(angle)) / np.pi, np.sqrt(2) * np.sin(angle)
    )
    for moment, particles, energies, _, seconds in run(method, jax.random.key(1), cloud, 4 / num, num, 2):
        found = np.sort(np.asarray(particles.position[:, 0]))
        yield {
            "time": moment,
            "wasserstein_1": float(np.abs(found - quantile).mean()),
            "energy": float(energies[-1]),
            "exact_energy": 0.375 + 0.25 * float(np.log(2)),
            "cpu_seconds_with_compilation": seconds,
        }


def peaks(position: np.ndarray) -> int:
    """Local maxima of a smoothed histogram."""
    cells, _, _ = np.histogram2d(*position.T, bins=22, range=[[-3.3, 3.3]] * 2)
    smooth = gaussian_filter(cells, 1.0)
    return int(np.sum((smooth == maximum_filter(smooth, 5)) & (smooth > 0.1 * smooth.max())))


def single_pulse(points: int = 151) -> float:
    """The energy of the steady pulse, by a fixed point of its equation on a grid of [-3, 3]²."""
    x, apart = np.linspace(-3, 3, points), np.linspace(-6, 6, 2 * points - 1)
    cell = (x[1] - x[0]) ** 2
    kernel = -9 * np.exp(-(apart[:, None] ** 2) - apart**2) / np.pi

    def attraction(density: np.ndarray) -> np.ndarray:
        return cell * fftconvolve(density, kernel)[points - 1 : -points + 1, points - 1 : -points + 1]

    def profile(level: float, pull: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(level - pull, 0) / 12.15)

    def excess(level: float, pull: np.ndarray) -> float:
        return cell * profile(level, pull).sum() - 1

    density = np.exp(-(x[:, None] ** 2) - x**2)
    density /= cell * density.sum()
    for _ in range(40):
        pull = attraction(density)
        density = profile(brentq(excess, pull.min(), 0.0, args=(pull,)), pull)
    return float(cell * np.sum(4.05 * density**3 + 0.5 * density * attraction(density)))


def figure(films: list[tuple[float, np.ndarray]], energies: np.ndarray, step_size: float, path: Path) -> None:
    """Shares of cells at some times, and the energy of every step."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    draw = Figure(figsize=(3 * (len(films) + 1), 3), layout="constrained")
    *panels, below = draw.subplots(1, len(films) + 1)
    for panel, (moment, position) in zip(panels, films, strict=True):
        panel.hist2d(*position.T, bins=66, range=[[-3.3, 3.3]] * 2, cmap="Blues")
        panel.set(title=f"t = {moment:g}", aspect="equal")
    below.plot(step_size * np.arange(1, 1 + len(energies)), energies)
    below.set(xlabel="t", title="energy")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw.savefig(path, dpi=110)


def pulses(size: int, num: int, stops: int, sizes: dict, figures: Path | None):
    method = gradient_flows.variational_jko(
        PULSES,
        gradient_flows.residual(2, width=32, depth=2),
        gradient_flows.log_ratio(2, width=32, depth=3, link=gradient_flows.softplus),
        forward_backward=True,
        average_decay=0.95,
        **sizes,
    )
    cloud = measures.uniform_box(jnp.full(2, -3.0), jnp.full(2, 3.0)).spread(jax.random.key(0), size)
    exact = single_pulse()
    films, energies = [(0.0, np.asarray(cloud.position))], np.zeros(0)
    for moment, particles, energies, info, seconds in run(method, jax.random.key(1), cloud, 0.25, num, stops):
        films.append((moment, np.asarray(particles.position)))
        yield {
            "time": moment,
            "peaks": peaks(films[-1][1]),
            "energy": float(energies[-1]),
            "exact_energy": exact,
            "largest_rise_of_energy": float(np.max(np.diff(energies))),
            "covered": float(np.min(info.covered)),
            "cpu_seconds_with_compilation": seconds,
        }
    if figures is not None:
        figure(films[:: max(1, stops // 5)], energies, 0.25, figures / "aggregation.png")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=200, help="of the ring")
    options.add_argument("--pulse-steps", type=int, default=80, help="of .25 each")
    options.add_argument("--figures", type=Path, metavar="DIRECTORY", help="where the pulses are drawn")
    options = options.parse_args()
    size, line_size, iterations, line_steps, stops = 2000, 400, 40, 40, 10
    pulse_size, sizes = 8192, {"num_iterations": 100, "batch": 4096, "start_steps": 1000}
    if options.smoke:
        options.steps, options.pulse_steps, stops = 2, 2, 1
        size, line_size, iterations, line_steps = 32, 32, 2, 2
        pulse_size, sizes = 64, {"num_iterations": 2, "batch": 16, "start_steps": 2}
    with report("accuracy/aggregation", options) as emit:
        for found in pulses(pulse_size, options.pulse_steps, stops, sizes, options.figures):
            emit(example="pulses", scheme="forward-backward", particles=pulse_size, **rounded(found))
        for scheme, explicit, batch in (
            ("forward-backward", True, None),
            ("joint, mini-batches", False, min(size, 500)),
            ("joint, all particles", False, None),
        ):
            cloud_size = size if batch is not None or explicit else min(size, 500)
            for found in ring(explicit, batch, cloud_size, options.steps, iterations):
                emit(example="ring", scheme=scheme, particles=cloud_size, **rounded(found))
        for found in semicircle(line_size, line_steps, 100 if not options.smoke else 2):
            emit(example="semicircle", scheme="joint, all particles", particles=line_size, **rounded(found))


if __name__ == "__main__":
    main()
