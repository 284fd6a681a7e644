"""``wfr-flows filter``: the hidden state behind noisy observations in time, for a model in Python."""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import measures
from wfr_flows.cli.directory import check_directory, made_by, making, refuse_to_replace
from wfr_flows.cli.files import told_in_one_sentence, write_arrays, write_figure, write_json
from wfr_flows.cli.options import (
    InputError,
    add_out,
    add_printing,
    add_quick,
    add_seed,
    count,
    non_negative,
    pick,
    subcommand,
)
from wfr_flows.cli.progress import Clock
from wfr_flows.cli.table import complain, show
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import Filtered, LinearGaussian, Observations, StateSpace
from wfr_flows.training import Method

DESCRIPTION = """\
Filter noisy observations of a diffusion: the law of its state at every time, given everything seen so far,
and the evidence of the model.

OBSERVATIONS is CSV with a header, or NPZ: one column (or array) holds the times, all others what was seen.
MODULE is a Python file, or the name of a module, that defines `model`: a StateSpace (from
`wfr_flows.inference.filtering.state_space`) or a LinearGaussian.

Methods: wfr moves weighted particles along a learned gradient flow, reweights them and knows their density;
metropolis runs chains on such a flow; bootstrap simulates particles; grid (one dimension) and kalman (linear
models) are exact.

Writes summary.json, filtered.npz (time, position, log_weight, log_density, mean, standard_deviation,
log_evidence) and filtered.png into the output directory.
"""

RESULTS = ("summary.json", "filtered.npz", "filtered.png")
_METHODS = ("wfr", "metropolis", "bootstrap", "grid", "kalman")
_NODES = 2000


class Task(NamedTuple):
    """A model, what was seen of it, and the linear model if that is what it is."""

    model: StateSpace
    linear: LinearGaussian | None
    data: Observations


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "filter",
        run,
        help="the hidden state behind noisy observations in time",
        description=DESCRIPTION,
    )
    add = parser.add_argument
    add("observations", metavar="OBSERVATIONS", help="CSV or NPZ file")
    add("--model", metavar="MODULE", required=True, help="Python file or module that defines `model`")
    add("--time", metavar="COLUMN", default="time", help="column or array of the times (default time)")
    add("--method", choices=_METHODS, default="wfr", help="see above (default wfr)")
    add("--until", type=float, metavar="TIME", help="predict for this later time as well")
    add("--particles", type=count, metavar="N", help="how many (8192; bootstrap 100000; quick 1024)")
    add("--interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the grid")
    add_out(parser, "wfr-filter")
    add_seed(parser)
    add_quick(parser)
    add_printing(parser)
    tuning = parser.add_argument_group("tuning")
    add = tuning.add_argument
    add("--num-steps", type=count, help="between observations: JKO steps (5; quick 2), or of the solver (50)")
    add("--iterations", type=count, help="of a JKO step (200; quick 50)")
    add("--threshold", type=non_negative, default=0.5, help="of the effective share of particles (0.5)")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    check_directory(options.out)
    task = _load(options)
    inputs = (options.observations, options.model)
    refuse_to_replace(options.out, RESULTS, inputs, ours=made_by(options.out, "filter"))
    with told_in_one_sentence():
        method = _method(options, task)
    clock = Clock()
    with clock.stage("filter"):
        found = _filtered(method, options.seed, task.data)
    if not np.isfinite(np.asarray(found.mean)).all():
        complain("the filter turned non-finite; look for a drift that explodes, or give more --num-steps.")
        return 1
    never = np.isneginf(np.asarray(found.log_evidence))
    if never.any():
        when = float(task.data.time[int(never.argmax())])
        raise InputError(
            f"no particle could be seen so at time {when:g}; give more --particles, or the model more noise."
        )
    summary = _summary(options, task, found) | {"seconds": clock.seconds}
    _write(options, task, found, summary)
    show(summary, _rows(summary), f"Filtered {options.observations} by {options.method}", options)
    return 0


def _load(options: argparse.Namespace) -> Task:
    found = _model(options.model)
    linear = found if isinstance(found, LinearGaussian) else None
    model = found.state_space() if isinstance(found, LinearGaussian) else found
    with told_in_one_sentence():
        points, time = measures.read_with_column(options.observations, options.time)
        value = np.asarray(points.position)
        if options.until is not None:
            time, value = np.append(time, options.until), np.vstack([value, np.full(value.shape[1], np.nan)])
        data = filtering.observations(time, value, start=model.start)
    one = model.initial.sample(jax.random.key(0), 1).position[0]
    try:
        expected = jax.eval_shape(model.sensor.draw, jax.random.key(0), data.time[0], one).shape
        jax.eval_shape(model.sensor.log_likelihood, data.time[0], one, data.value[0])
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{options.model} does not fit {options.observations} ({reason}); repair it."
        ) from error
    if expected != data.value.shape[1:]:
        raise InputError(
            f"{options.observations} has {data.value.shape[1]} columns beside the times, and the model in"
            f" {options.model} is seen as {expected}; give the same."
        )
    return Task(model, linear, data)


def _model(name: str) -> StateSpace | LinearGaussian:
    """What a file or module calls ``model``."""
    try:
        if name.endswith(".py"):
            if not Path(name).is_file():
                raise InputError(f"--model {name} is not a file; give a Python file, or a module.")
            spec = importlib.util.spec_from_file_location("wfr_flows_user_model", name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, "")
            module = importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:  # a user's code may raise anything
        reason = str(error).splitlines()[0] if str(error) else ""
        raise InputError(
            f"--model {name} fails with {type(error).__name__} ({reason}); repair it."
        ) from error
    found = getattr(module, "model", None)
    if not isinstance(found, StateSpace | LinearGaussian):
        raise InputError(f"--model {name} defines no `model`; name a StateSpace or a LinearGaussian so.")
    return found


def _method(options: argparse.Namespace, task: Task) -> Method:
    model, kind = task.model, options.method
    num = pick(options, "particles", 100_000 if kind == "bootstrap" else 8192, 1024)
    if kind == "kalman":
        if task.linear is None:
            raise InputError(f"--method kalman needs {options.model} to be linear; give another method.")
        return filtering.kalman_filter(task.linear, num)
    if kind == "bootstrap":
        return filtering.particle_filter(
            model, num, num_steps=options.num_steps or 50, threshold=options.threshold
        )
    if kind == "grid":
        if options.interval is None:
            raise InputError("--method grid needs --interval LOW HIGH, well around where the state may go.")
        low, high = options.interval
        steps = options.num_steps or 500
        return filtering.grid_filter(model, low, high, num_nodes=_NODES, num_steps=steps)
    prediction = filtering.flow_prediction(
        model,
        num_steps=pick(options, "num_steps", 5, 2),
        num_iterations=pick(options, "iterations", 200, 50),
    )
    if kind == "metropolis":
        return filtering.metropolis_filter(model, prediction, num_particles=2 * num, num_chains=num)
    return filtering.wfr_filter(model, prediction, num_particles=num, threshold=options.threshold)


def _filtered(method: Method, number: int, data: Observations) -> Filtered:
    run = jax.jit(lambda key, data: filtering.assimilate(method, key, data))
    return jax.block_until_ready(run(jax.random.key(number), data))


def _summary(options: argparse.Namespace, task: Task, found: Filtered) -> dict[str, Any]:
    return {
        "command": "filter",
        "observations": options.observations,
        "model": options.model,
        "method": options.method,
        "dimension": task.model.dim,
        "time": np.asarray(found.time).tolist(),
        "mean": np.asarray(found.mean).tolist(),
        "standard_deviation": np.asarray(found.standard_deviation).tolist(),
        "log_evidence": float(jnp.sum(found.log_evidence)),
        "log_evidence_by_time": np.asarray(found.log_evidence).tolist(),
        "effective_sample_size": np.asarray(found.effective_sample_size).tolist(),
        "resampled": int(jnp.sum(found.resampled)),
        "particles": found.particles.log_weight.shape[-1],
        "seed": options.seed,
        "precision": str(found.log_evidence.dtype),
        "device": jax.devices()[0].device_kind,
    }


def _write(options: argparse.Namespace, task: Task, found: Filtered, summary: dict[str, Any]) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    arrays = {
        "time": found.time,
        "position": found.particles.position,
        "log_weight": found.particles.log_weight,
        "log_density": found.log_density,
        "mean": found.mean,
        "standard_deviation": found.standard_deviation,
        "log_evidence": found.log_evidence,
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    figure = plotting.filtering(
        arrays["time"], arrays["mean"], arrays["standard_deviation"], arrays["log_evidence"]
    )
    with making(options.out):
        write_arrays(options.out / "filtered.npz", arrays)
        write_figure(options.out / "filtered.png", figure)
        write_json(options.out / "summary.json", summary)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    last = zip(summary["mean"][-1][:4], summary["standard_deviation"][-1][:4], strict=True)
    sizes = [size for size in summary["effective_sample_size"] if np.isfinite(size)]
    return [
        ("times", str(len(summary["time"]))),
        ("dimension", str(summary["dimension"])),
        ("log-evidence", f"{summary['log_evidence']:.4f}"),
        (f"state at time {summary['time'][-1]:g}", ", ".join(f"{m:.4f} ± {s:.4f}" for m, s in last)),
        ("least effective sample size", f"{min(sizes):.0f} of {summary['particles']}" if sizes else "exact"),
        ("seconds", f"{sum(summary['seconds'].values()):.1f}"),
    ]
