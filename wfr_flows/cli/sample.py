"""``wfr-flows sample``: samples of a density of the user's, with their own density, by a gradient flow."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from wfr_flows import gradient_flows, inference, measures, potentials, training
from wfr_flows.cli.directory import check_directory, made_by, making, refuse_to_replace
from wfr_flows.cli.files import write_arrays, write_json
from wfr_flows.cli.options import InputError, add_resume, add_run, count, pick, positive, subcommand
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.table import screen, show
from wfr_flows.cli.unfinished import keeping
from wfr_flows.cli.user_code import guarded, load_module
from wfr_flows.gradient_flows import Sample
from wfr_flows.inference import Weighted
from wfr_flows.training import Method, cosine_muon
from wfr_flows.typing import Array, Float, Scalar

DESCRIPTION = """\
Draw samples of a density that is known up to a constant, as a Python function, and tell the density of what
was drawn.

MODULE:FUNCTION names a JAX function of one point [d] that returns its log-density, a scalar; MODULE is a
Python file, or the name of a module, which is looked for in the current directory too. A Gaussian around 0
is carried towards it by JKO steps: gradients of input-convex networks, along which the density is known.
Modes that lie apart are found at a high temperature, which then falls: for modes four times as far apart as
they are wide, give --start 4 --temperature 16 --step-size 20. Importance weights from both densities tell
how good the samples are, correct them, and give the constant.

Writes samples.npz (position, log_density of the samples as drawn, log_weight that corrects them) and
summary.json into the output directory.
"""

RESULTS = ("samples.npz", "summary.json")


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "sample",
        run,
        help="samples of a log-density that is a Python function",
        description=DESCRIPTION,
        example="--log-density model:banana --dim 2 --out result",
    )
    add = parser.add_argument
    add("--log-density", metavar="MODULE:FUNCTION", required=True, help="x: [d] -> scalar, in JAX")
    add("--dim", type=count, required=True, help="dimension d")
    add("--samples", type=count, default=4096, help="how many (default 4096)")
    add(
        "--start",
        type=positive,
        default=1.0,
        help="standard deviation of the Gaussian to begin at (default 1)",
    )
    add_run(parser, "wfr-sample")
    add_resume(parser)
    add(
        "--temperature",
        type=positive,
        default=1.0,
        help="to begin at; it falls to 1. For modes that lie apart, with large steps (default 1)",
    )
    tuning = parser.add_argument_group("tuning")
    add = tuning.add_argument
    add("--steps", type=count, help="JKO steps (40; quick 20)")
    add(
        "--step-size",
        type=positive,
        default=0.1,
        help="of a JKO step, in time of the Langevin diffusion (0.1)",
    )
    add("--iterations", type=count, help="updates in a step (300; quick 100)")
    add("--batch", type=count, help="particles in an update (1024; quick 512)")
    add("--num-particles", type=count, help="that are carried along (32768; quick 8192)")
    add("--units", type=count, default=8, help="of the networks, smooth maxima of 16 affine functions (8)")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_directory(options.out)
    refuse_to_replace(options.out, RESULTS, (), ours=made_by(options.out, "sample"))
    log_density = _load(options.log_density, options.dim)
    console, clock = screen(options), Clock()
    module = options.log_density.rpartition(":")[0]
    files = [name for name in (module, f"{module.replace('.', '/')}.py") if Path(name).is_file()]
    with keeping(options, files) as kept:
        with clock.stage("flow"):
            sample, energy = kept.trained(lambda: _flow(options, log_density, console))
        with clock.stage("evaluation"):
            log_ratio = jax.jit(jax.vmap(log_density))(sample.particles.position) - sample.log_density
            weighed = jax.jit(inference.weigh)(sample.particles, log_ratio)
        summary = _summary(options, weighed, log_ratio, energy)
        summary |= {"seconds": clock.seconds} | kept.summary()
        with making(options.out):
            write_arrays(
                options.out / "samples.npz",
                {
                    "position": np.asarray(sample.particles.position),
                    "log_density": np.asarray(sample.log_density),
                    "log_weight": np.asarray(weighed.particles.log_weight),
                },
            )
            write_json(options.out / "summary.json", summary)
    rows = [
        ("samples", str(summary["samples"])),
        ("log of the normaliser", f"{summary['log_normaliser']:.4f}"),
        ("KL divergence from the target", f"{summary['kl_divergence']:.4f}"),
        ("effective sample size", f"{summary['effective_sample_size']:.1f}"),
    ]
    show(summary, rows, f"Samples of {options.log_density}", options)
    return kept.exit_code()


def _load(name: str, dim: int) -> Callable[[Float[Array, " d"]], Scalar]:
    """The user's function, once it is seen to give finite scalars."""
    module, _, function = name.rpartition(":")
    if not module or not function:
        raise InputError(f"--log-density {name} is no MODULE:FUNCTION; give for instance target:log_density.")
    remedy = f"give a JAX function of a point of shape ({dim},) that returns a scalar"
    with guarded(f"--log-density {name}", remedy):
        found = getattr(load_module(module), function)
        value = found(jnp.zeros(dim))
        finite = np.shape(value) == () and bool(jnp.isfinite(jax.grad(found)(jnp.zeros(dim))).all())
    if not finite or not np.isfinite(value):
        raise InputError(
            f"--log-density {name} is no finite scalar with a finite gradient at the origin; give a JAX"
            f" function of a point of shape ({dim},) whose support holds the origin."
        )
    return found


def _flow(options: argparse.Namespace, log_density, console: Console) -> tuple[Sample, list[float]]:
    """Samples carried to the end of the flow, and its energy after every step."""
    dim, steps = options.dim, pick(options, "steps", 40, 20)
    iterations = pick(options, "iterations", 300, 100)
    potential = potentials.max_affine(dim, units=options.units, pieces=16)
    source = measures.gaussian(jnp.zeros(dim), options.start**2 * jnp.eye(dim))

    def towards(target) -> Method:
        return gradient_flows.icnn_jko(
            potential,
            gradient_flows.free_energy(target),
            cosine_muon(iterations, 1e-2),
            num_iterations=iterations,
            batch=pick(options, "batch", 1024, 512),
        )

    # The last steps, a sixth of them, are at temperature 1.
    temperature = jnp.geomspace(options.temperature, 1.0, max(1, steps - steps // 6)).at[-1].set(1.0)
    method = gradient_flows.annealed(towards, log_density, temperature)
    pool_key, init_key, key, draw_key = jax.random.split(jax.random.key(options.seed), 4)
    pool = source.spread(pool_key, pick(options, "num_particles", 32768, 8192))
    if pool.log_weight.size > 2 * dim:
        pool = measures.with_moments(pool, jnp.zeros(dim), options.start**2 * jnp.eye(dim))
    sampled = jax.jit(lambda p: Sample(p, jax.vmap(source.log_density)(p.position)))  # pyright: ignore
    chunks = []
    carry = jax.jit(lambda maps, sample: gradient_flows.carry(potential, maps, sample))

    def drawn(_) -> tuple[Sample, list[float]]:
        maps = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(info.map for info in chunks))
        found = carry(maps, sampled(source.sample(draw_key, options.samples)))
        return found, np.concatenate([info.energy for info in chunks]).tolist()

    with Bars(console) as bars, training.last_good(lambda state: drawn(state) if chunks else None):
        bars.add("JKO steps", steps)

        def on_chunk(chunk: training.Chunk) -> None:
            chunks.append(chunk.info)
            bars.show("JKO steps", chunk.step, energy=chunk.info.energy)

        state = training.run(
            method,
            key,
            jax.jit(method.init)((init_key, sampled(pool))),
            lambda _: options.step_size,
            steps,
            chunk_size=1,
            on_chunk=on_chunk,
        )
    return drawn(state)


def _summary(
    options: argparse.Namespace, weighed: Weighted, log_ratio: Array, energy: list[float]
) -> dict[str, Any]:
    log_normaliser = float(weighed.log_evidence)
    return {
        "command": "sample",
        "log_density": options.log_density,
        "dimension": options.dim,
        "samples": log_ratio.size,
        "log_normaliser": log_normaliser,
        "kl_divergence": log_normaliser - float(jnp.mean(log_ratio)),
        "effective_sample_size": float(weighed.particles.effective_sample_size),
        "energy": energy,
        "seed": options.seed,
        "device": jax.devices()[0].device_kind,
    }
