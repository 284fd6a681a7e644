"""Dynamics through snapshots: Gaussian clusters whose masses are known, in many dimensions, or a table.

Clusters: at time 0, 400 points of ``N(0, .005 I)`` and 100 of ``N(2.5 e2, .005 I)``; at time 1, 200 each of
``N(±e1, .005 I)`` and 1000 of ``N(2.5 e2, .005 I)``. Carried there, they hold 2/14, 2/14, 10/14 of the mass.
The energy distance to the snapshot stands beside its floor, that between two fresh ones.

``--table FILE --time COLUMN --alpha A`` runs the command ``wfr-flows snapshots`` on a table. With
``--hill-growth`` its growth is compared with ``x2²/(1 + x2²)``, by which cells of the gene circuit divide.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import parser, report, rounded
from wfr_flows import dynamics, geodesics, measures, metrics, potentials
from wfr_flows.cli import main as command
from wfr_flows.dynamics import Geometry
from wfr_flows.measures import Particles

VARIANCE = 0.005
SMOKE_STEPS = 20


def clusters(key: jax.Array, dim: int, places: list[tuple[int, int, float]]) -> Particles:
    """``(count, axis, height)`` of every cluster; a point weighs 1/500."""
    centre = jnp.concatenate([jnp.tile(h * jnp.eye(dim)[axis], (n, 1)) for n, axis, h in places])
    position = centre + jnp.sqrt(VARIANCE) * jax.random.normal(key, centre.shape)
    return Particles(position, jnp.full(len(centre), -jnp.log(500.0)))


def start(key: jax.Array, dim: int) -> Particles:
    return clusters(key, dim, [(400, 0, 0.0), (100, 1, 2.5)])


def end(key: jax.Array, dim: int) -> Particles:
    return clusters(key, dim, [(200, 0, 1.0), (200, 0, -1.0), (1000, 1, 2.5)])


def mixture(key: jax.Array, dim: int, alpha: float, num_steps: int, *, project: bool) -> dict:
    """With ``project`` along the components that stand out of noise; the rest of a point stays with it."""
    keys = jax.random.split(key, 6)
    geometry = Geometry(alpha, spherical=False)
    given = start(keys[0], dim), end(keys[1], dim)
    since = time.perf_counter()
    everything = Particles(*(jnp.concatenate(leaves) for leaves in zip(*given, strict=True)))
    components = measures.principal_components(everything, None if project else dim)
    snapshots = [m._replace(position=components.scores(m.position)) for m in given]
    dim = components.basis.shape[1]
    chain = geodesics.chain(keys[2], [0.0, 1.0], snapshots, geometry)
    field = dynamics.windowed(dynamics.potential_field(potentials.mlp(dim, width=64), geometry), chain.time)
    params = geodesics.fit_chain(
        keys[3],
        field,
        geometry,
        chain,
        snapshots,
        matching_steps=num_steps,
        refinement_steps=num_steps // 20,
        blur=0.0,
    )
    path = jax.jit(lambda params, s: geodesics.push(field, geometry, params, s, chain.time))(
        params, snapshots[0]
    )
    seconds = time.perf_counter() - since
    there = path.at(-1)
    there = there._replace(position=components.moved(given[0].position, there.position))
    action = jax.jit(lambda params, p: geodesics.window_actions(field, geometry, params, p, 1))(params, path)
    weight, x = there.weight / there.mass, there.position
    shares = [
        jnp.sum(jnp.where(chosen, weight, 0.0))
        for chosen in ((x[:, 1] < 1.25) & (x[:, 0] > 0), (x[:, 1] < 1.25) & (x[:, 0] <= 0), x[:, 1] >= 1.25)
    ]
    fresh, other = (end(key, x.shape[1]) for key in keys[4:])
    distance = jax.jit(metrics.energy_distance)
    return {
        "components": dim,
        "shares": [float(share) for share in shares],
        "share_error": max(abs(float(s) - t / 14) for s, t in zip(shares, (2, 2, 10), strict=True)),
        "relative_mass_error": abs(float(there.mass) / 2.8 - 1),
        "energy_distance": float(distance(there, fresh)),
        "floor": float(distance(other, fresh)),
        "action": float(action[0]),
        "certified_lower": float(chain.lower[0]),
        "certified_upper": float(chain.upper[0]),
        "seconds": seconds,
    }


def table(options, seed: int) -> dict:
    """What the command writes to summary.json."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        given = ["--time", options.time, "--alpha", str(options.alpha), "--seed", str(seed), "--out", folder]
        since = time.perf_counter()
        given += ["--field", options.field, *["--quick"] * options.quick]
        code = command(["snapshots", str(options.table), *given])
        seconds = time.perf_counter() - since
        if code:
            raise SystemExit(f"wfr-flows ended with exit code {code}")
        summary = json.loads((Path(folder) / "summary.json").read_text())
        cells = dict(np.load(Path(folder) / "cells.npz"))
    distances, errors = summary["wasserstein_1"], summary["relative_mass_error"]
    middle = 0.5 * (summary["certified_lower"] + summary["certified_upper"])
    hill = cells["position"][:, 1] ** 2 / (1 + cells["position"][:, 1] ** 2)
    growth = {"growth_correlation": float(np.corrcoef(cells["growth"], hill)[0, 1])}
    return {
        **(growth if options.hill_growth else {}),
        "mean_wasserstein_1": sum(distances) / len(distances),
        "mean_relative_mass_error": sum(errors) / len(errors),
        "action": summary["action"],
        "certified": [summary["certified_lower"], summary["certified_upper"]],
        "relative_action_error": summary["action"] / middle - 1,
        "wall_seconds": seconds,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dims", type=int, nargs="*", default=[10, 100, 1000])
    options.add_argument("--components", action="store_true", help="along those that stand out of noise")
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--alpha", type=float, default=1.0)
    options.add_argument("--table", type=Path, help="a table instead")
    options.add_argument("--time", help="its column of times")
    options.add_argument("--quick", action="store_true", help="the command's smaller, rougher run")
    options.add_argument("--hill-growth", action="store_true", help="compare growth, see above")
    options.add_argument("--field", choices=("potential", "free"), default="potential")
    options = options.parse_args()
    if options.smoke:
        options.dims = [3]
    with report("accuracy/snapshots", options) as emit:
        for seed in options.seeds:
            if options.table is not None:
                emit(
                    table=options.table.name,
                    alpha=options.alpha,
                    field=options.field,
                    quick=options.quick,
                    seed=seed,
                    **rounded(table(options, seed), 5),
                )
                continue
            for dim in options.dims:
                steps = SMOKE_STEPS if options.smoke else 2000
                project = options.components
                found = mixture(jax.random.key(seed), dim, options.alpha, steps, project=project)
                emit(example="clusters", dim=dim, alpha=options.alpha, seed=seed, **rounded(found, 5))


if __name__ == "__main__":
    main()
