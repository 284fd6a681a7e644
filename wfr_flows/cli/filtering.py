"""``wfr-flows filter``: the hidden state behind noisy observations in time, for a model in Python."""

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import measures
from wfr_flows.cli.directory import check_directory, made_by, making, refuse_to_replace
from wfr_flows.cli.files import told_in_one_sentence, write_arrays, write_figure, write_json
from wfr_flows.cli.options import InputError, add_run, count, non_negative, pick, subcommand
from wfr_flows.cli.progress import Clock
from wfr_flows.cli.table import complain, show
from wfr_flows.cli.user_code import guarded, load_module
from wfr_flows.inference import filtering
from wfr_flows.inference.filtering import Filtered, LinearGaussian, Observations, StateSpace
from wfr_flows.inference.filtering.filtered import log_likelihoods
from wfr_flows.training import Method
from wfr_flows.typing import Array

DESCRIPTION = """\
Filter noisy observations of a diffusion: the law of its state at every time, given everything seen so far,
and the evidence of the model.

OBSERVATIONS is CSV with a header, or NPZ: one column (or array) holds the times, all others what was seen.
MODULE is a Python file, or the name of a module, that defines `model`: a StateSpace (from
`wfr_flows.inference.filtering.state_space`) or a LinearGaussian.

Methods: wfr moves weighted particles along a learned gradient flow, reweights them and knows their density;
metropolis runs chains on such a flow; bootstrap simulates particles; grid (one dimension) and kalman (linear
models) are exact. Flows need noise that is square, invertible and the same at all times and states; for any
other take bootstrap.

Writes summary.json, filtered.npz (time, position, log_weight, log_density, mean, standard_deviation,
log_evidence) and filtered.png into the output directory.
"""

RESULTS = ("summary.json", "filtered.npz", "filtered.png")
_METHODS = ("wfr", "metropolis", "bootstrap", "grid", "kalman")
_NODES = 2000
_FEW = 10
_EDGE = 1e-3
_ROUNDED = 0.1
_OF_METHODS = {
    "interval": ("grid",),
    "particles": ("wfr", "metropolis", "bootstrap", "kalman"),
    "num_steps": ("wfr", "metropolis", "bootstrap", "grid"),
    "iterations": ("wfr", "metropolis"),
    "threshold": ("wfr", "bootstrap"),
}


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
        example="seen.csv --model model.py --out result",
    )
    add = parser.add_argument
    add("observations", metavar="OBSERVATIONS", help="CSV or NPZ file")
    add("--model", metavar="MODULE", required=True, help="Python file or module that defines `model`")
    add("--time", metavar="COLUMN", default="time", help="column or array of the times (default time)")
    add("--method", choices=_METHODS, default="wfr", help="see above (default wfr)")
    add("--until", type=float, metavar="TIME", help="predict for this later time as well")
    add("--particles", type=count, metavar="N", help="how many (8192; bootstrap 100000; quick 1024)")
    add("--interval", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the grid")
    add_run(parser, "wfr-filter")
    tuning = parser.add_argument_group("tuning")
    add = tuning.add_argument
    add("--num-steps", type=count, help="between observations: JKO steps (5; quick 2), or of the solver (50)")
    add("--iterations", type=count, help="of a JKO step (200; quick 50)")
    add("--threshold", type=non_negative, help="of the effective share of particles (0.5)")


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    _check_options(options)
    check_directory(options.out)
    task = _load(options)
    inputs = (options.observations, options.model)
    refuse_to_replace(options.out, RESULTS, inputs, ours=made_by(options.out, "filter"))
    with guarded(f"--model {options.model}"), told_in_one_sentence():
        method = _method(options, task)
    clock = Clock()
    with clock.stage("filter"):
        found = _filtered(options, method, task.data)
    if not _usable(options, task, found):
        return 1
    summary = _summary(options, task, found) | {"seconds": clock.seconds}
    _write(options, task, found, summary)
    show(summary, _rows(summary), f"Filtered {options.observations} by {options.method}", options)
    _warn(options, found)
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """Refuse what the method has no use for."""
    for name, methods in _OF_METHODS.items():
        if getattr(options, name) is not None and options.method not in methods:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} means nothing to --method {options.method}; leave it out.")


def _load(options: argparse.Namespace) -> Task:
    name = options.model
    with guarded(f"--model {name}"):
        found = getattr(load_module(name), "model", None)
    if not isinstance(found, StateSpace | LinearGaussian):
        raise InputError(f"--model {name} defines no `model`; name a StateSpace or a LinearGaussian so.")
    linear = found if isinstance(found, LinearGaussian) else None
    with guarded(f"--model {name}"):
        model = found.state_space() if isinstance(found, LinearGaussian) else found
        start = float(model.start)
    with told_in_one_sentence():
        points, time = measures.read_with_column(options.observations, options.time)
        value = np.asarray(points.position)
        data = filtering.observations(time, value, start=start)
        if options.until is not None:
            if not time[-1] < options.until < np.inf:
                said = f"--until {options.until:g} is not later than the last time, {time[-1]:g}"
                raise InputError(f"{said}; give a later one.")
            time, value = np.append(time, options.until), np.vstack([value, np.full(value.shape[1], np.nan)])
            data = filtering.observations(time, value, start=start)
    with guarded(f"--model {name}"):
        _check_model(model, data.time[0])
        x = model.initial.sample(jax.random.key(0), 1).position[0]
        seen = jax.eval_shape(model.sensor.draw, jax.random.key(0), data.time[0], x)
        if seen.shape != data.value.shape[1:]:
            raise InputError(
                f"{options.observations} has {data.value.shape[1]} columns beside the times, and the model in"
                f" {name} is seen as {seen.shape}; make them fit."
            )
        _check_shape(
            "sensor's log-likelihood", (), model.sensor.log_likelihood, data.time[0], x, data.value[0]
        )
    return Task(model, linear, data)


def _check_model(model: StateSpace, t: Array) -> None:
    """Trace what the user has written, but the sensor, and compare its shapes with what they should be."""
    x = model.initial.sample(jax.random.key(0), 1).position[0]
    dim = model.dim
    if x.shape != (dim,):
        raise ValueError(f"the initial law has points {x.shape} and dimension {dim}; make them fit")
    _check_shape("drift", (dim,), model.drift, t, x)
    _check_shape("noise", (dim, None), model.noise, t, x)
    if model.potential is not None:
        _check_shape("potential", (), model.potential, x)
    if model.initial.log_density is not None:
        _check_shape("initial log-density", (), model.initial.log_density, x)


def _check_shape(name: str, expected: tuple[int | None, ...], function, *arguments) -> None:
    found = jax.eval_shape(function, *arguments)
    shape = getattr(found, "shape", None)
    known = () if shape is None else tuple(s for s, e in zip(shape, expected, strict=False) if e is not None)
    wanted = tuple(e for e in expected if e is not None)
    if shape is None or len(shape) != len(expected) or known != wanted:
        said = ", ".join("r" if e is None else str(e) for e in expected)
        what = type(found).__name__ if shape is None else f"an array of shape {shape}"
        raise ValueError(f"the {name} is {what} instead of one of shape [{said}]")


def _method(options: argparse.Namespace, task: Task) -> Method:
    model, kind = task.model, options.method
    threshold = 0.5 if options.threshold is None else options.threshold
    num = pick(options, "particles", 100_000 if kind == "bootstrap" else 8192, 1024)
    if kind == "kalman":
        if task.linear is None:
            raise InputError(f"--method kalman needs {options.model} to be linear; give another method.")
        return filtering.kalman_filter(task.linear, num)
    if kind == "bootstrap":
        return filtering.particle_filter(model, num, num_steps=options.num_steps or 50, threshold=threshold)
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
    return filtering.wfr_filter(model, prediction, num_particles=num, threshold=threshold)


def _filtered(options: argparse.Namespace, method: Method, data: Observations) -> Filtered:
    arguments = jax.random.key(options.seed), data
    with guarded(f"--model {options.model}"):  # the user's functions are traced once more
        traced = jax.jit(lambda key, data: filtering.assimilate(method, key, data)).lower(*arguments)
    with redirect_stdout(sys.stderr):
        return jax.block_until_ready(traced.compile()(*arguments))


def _usable(options: argparse.Namespace, task: Task, found: Filtered) -> bool:
    """Whether all is finite; an `InputError` where the observations or their likelihood are at fault."""
    evidence, mean = np.asarray(found.log_evidence), np.asarray(found.mean)
    broken = ~np.isfinite(mean).all(axis=1) | np.isnan(evidence) | (evidence == np.inf)
    never = np.isneginf(evidence)
    if not (broken | never).any():
        return True
    first = int((broken | never).argmax())
    when, now = float(task.data.time[first]), jax.tree.map(lambda leaf: leaf[first], task.data)
    if never[first]:
        raise InputError(
            f"no particle could be seen so at time {when:g}; give more --particles, or the model more noise."
        )
    x = found.particles.position[first]
    likelihood = np.asarray(log_likelihoods(task.model, x, now))
    wrong = np.isfinite(np.asarray(x)).all(axis=1) & (np.isnan(likelihood) | (likelihood == np.inf))
    if wrong.any():
        where = ", ".join(f"{number:g}" for number in np.asarray(x)[int(wrong.argmax())])
        raise InputError(
            f"the log-likelihood of the model in {options.model} is NaN or infinite at time {when:g} for the"
            f" state ({where}); make it finite, or -inf."
        )
    complain(
        f"the filter turned non-finite at time {when:g}; look for a drift that explodes or a likelihood that"
        " is NaN, or give more --num-steps."
    )
    return False


def _warn(options: argparse.Namespace, found: Filtered) -> None:
    """Tell of results that are not to be trusted."""
    size = np.asarray(found.effective_sample_size)
    worst = int(size.argmin())
    if size[worst] < _FEW:
        complain(
            f"the law at time {found.time[worst]:g} rests on {size[worst]:.3g} effective particles; give more"
            " --particles, or the model more noise."
        )
    if options.method == "grid":
        assert found.predicted is not None
        weight, width = np.asarray(found.predicted.weight), _NODES // 100
        edge = np.maximum(weight[:, :width].sum(axis=1), weight[:, -width:].sum(axis=1)).max()
        if edge > _EDGE:
            complain(f"a share of {edge:.2g} has reached the ends of the grid; give a wider --interval.")
        assert found.coarseness is not None
        coarse = np.asarray(found.coarseness)
        worst = int(coarse.argmax())
        if coarse[worst] > 1:
            complain(
                f"the law at time {found.time[worst]:g} or before it is sharper than the grid, whose nodes"
                f" are {coarse[worst]:.2g} of its deviations apart, and deviations and evidence are wrong;"
                " give a narrower --interval, or take --method wfr."
            )
    rounding = np.asarray(found.rounding)
    worst = int(rounding.argmax())
    if rounding[worst] > _ROUNDED:
        complain(
            f"at time {found.time[worst]:g} neighbouring numbers of {found.log_evidence.dtype} are"
            f" {rounding[worst]:.2g} standard deviations of the state apart; subtract an origin from the"
            " states and observations, or set JAX_ENABLE_X64=1."
        )


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
        "coarseness": None if found.coarseness is None else np.asarray(found.coarseness).tolist(),
        "rounding": np.asarray(found.rounding).tolist(),
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
