"""ICNN-JKO towards the published random mixtures: from N(0, 16 I) to 5-10 Gaussians around uniform centres.

Large steps with smooth maxima of affine functions, the temperature falling from 16 to 1.

``symmetric_kl`` between the end of the flow and the target, over samples of both. ``published`` are the means
over five targets of ICNN_jko in https://github.com/PetrMokrov/Large-Scale-Wasserstein-Gradient-Flows
(results/, commit 4947b00), with its seconds on a GTX 1080 Ti; ours are CPU seconds.

``--large`` runs the two mixtures in 13 and 32 dimensions; ``--figures`` draws their first principal
components.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import jko, targets
from benchmarks.common import parser, report, rounded
from wfr_flows import potentials
from wfr_flows.training import cosine_muon

PUBLISHED = {
    2: (0.0615, 973),
    4: (0.1755, 1674),
    6: (0.301, 2125),
    8: (0.396, 3370),
    10: (0.329, 4034),
    12: (0.509, 7175),
}
START_VARIANCE = 16.0
SETTINGS = ("units", "pieces", "steps", "step_size", "iterations", "strong_convexity")


def trial(
    options: argparse.Namespace, compiled: jko.Flow, centre: np.ndarray, seed: int
) -> tuple[dict, np.ndarray]:
    """The record of a run, and the samples at its end."""
    key, error_key, draw_key = jax.random.split(jax.random.key(seed), 3)
    data = (jnp.asarray(centre, float),)
    learned = jko.learn(compiled, key, data, [options.step_size] * options.steps)
    end = compiled.push(draw_key, learned.maps)
    position = np.asarray(end.particles.position)
    fresh = end.log_density - jax.jit(jax.vmap(targets.mixture(centre).log_density))(end.particles.position)
    return {
        "symmetric_kl": float(compiled.error(error_key, learned.maps, *data)),
        "kl_of_samples": float(jnp.mean(fresh)),
        "share_of_nearest_centre": shares(position, centre),
        "cpu_seconds": sum(learned.seconds),
    }, position


def shares(position: np.ndarray, centre: np.ndarray) -> list[float]:
    nearest = np.sum((position[:, None] - centre) ** 2, axis=-1).argmin(axis=1)
    return (np.bincount(nearest, minlength=len(centre)) / len(position)).round(3).tolist()


def figure(position: np.ndarray, centre: np.ndarray, path: Path) -> None:
    """Samples and target on the first two principal components of the centres."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    draw = Figure(figsize=(8, 4), layout="constrained")
    exact = np.asarray(targets.mixture(centre).sample(jax.random.key(1), len(position)).position)
    _, _, axes = np.linalg.svd(centre - centre.mean(axis=0), full_matrices=False)
    panels = draw.subplots(1, 2, sharex=True, sharey=True)
    for panel, points, title in zip(panels, (position, exact), ("JKO flow", "target"), strict=True):
        shown = (points - centre.mean(axis=0)) @ axes[:2].T
        panel.hist2d(*shown.T, bins=80, cmap="Blues")
        panel.set_title(f"{title}, d = {position.shape[1]}")
        panel.set_xlabel("first principal component")
    panels[0].set_ylabel("second")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--dims", type=int, nargs="+", default=[2, 6, 12])
    options.add_argument("--targets", type=int, default=5, help="of every dimension (5)")
    options.add_argument("--units", type=int, default=8)
    options.add_argument("--pieces", type=int, default=16)
    options.add_argument("--strong-convexity", type=float, default=0.6)
    options.add_argument("--steps", type=int, default=20, help="the last 3 of them at temperature 1 (20)")
    options.add_argument("--step-size", type=float, default=20.0)
    options.add_argument("--pool", type=int, default=65536)
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--iterations", type=int, default=200)
    options.add_argument("--learning-rate", type=float, default=1e-2)
    options.add_argument("--evaluation", type=int, default=4096)
    options.add_argument("--quick", action="store_true", help="one target of every dimension")
    options.add_argument("--large", action="store_true", help="the two in 13 and 32 dimensions")
    options.add_argument("--figures", type=Path, metavar="DIRECTORY", help="with --large, where they go")
    options = options.parse_args()
    options.optimiser = cosine_muon
    options.temperature = np.geomspace(START_VARIANCE, 1.0, max(options.steps - 2, 2))
    if options.quick:
        options.targets = 1
    if options.smoke:
        options.dims, options.targets, options.units, options.steps = [2], 1, 2, 3
        options.pool, options.batch, options.iterations, options.evaluation = 256, 128, 2, 64
    return options


def main() -> None:
    options = arguments()
    settings = {name: getattr(options, name) for name in SETTINGS}
    with report("accuracy/mixture_convergence", options) as emit:
        for dim in targets.LARGE_MIXTURES if options.large else options.dims:
            potential = potentials.max_affine(
                dim, units=options.units, pieces=options.pieces, strong_convexity=options.strong_convexity
            )
            compiled = jko.flow(options, potential, START_VARIANCE, targets.mixture, targets.mixture)
            if options.large:
                centre = targets.mixture_centres(
                    targets.LARGE_MIXTURES[dim][0], dim, *targets.LARGE_MIXTURES[dim][1:]
                )
                run, position = trial(options, compiled, centre, 0)
                if options.figures is not None:
                    figure(position, centre, options.figures / f"mixture_{dim}d.png")
                emit(dim=dim, **settings, **rounded(run))
                continue
            runs = []
            for index in range(options.targets):
                key, num = targets.MIXTURES[dim]
                centre = targets.mixture_centres(key, dim, num, 5.0, index)
                runs.append(trial(options, compiled, centre, index)[0])
                emit(dim=dim, target=index, **rounded(runs[-1]))
            mean = {n: float(np.mean([r[n] for r in runs])) for n in ("symmetric_kl", "cpu_seconds")}
            published, seconds = PUBLISHED[dim]
            emit(
                dim=dim,
                targets=len(runs),
                **settings,
                **rounded(mean),
                published=published,
                gpu_seconds=seconds,
            )


if __name__ == "__main__":
    main()
