"""The stages of ``wfr-flows geodesic``: load, exact distance, training, evaluation, files."""

import argparse
import dataclasses
import json
import shutil
import uuid
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from wfr_flows import geodesics, measures, metrics, potentials, static, training
from wfr_flows.cli.directory import making
from wfr_flows.cli.files import (
    check_dimensions,
    check_weights,
    read_end,
    told_in_one_sentence,
    write_arrays,
    write_atomically,
    write_figure,
    write_json,
)
from wfr_flows.cli.options import InputError
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.settings import Settings
from wfr_flows.cli.unfinished import Kept
from wfr_flows.dynamics import Geometry, Trajectory, flow, time_grid
from wfr_flows.measures import Distribution, Particles
from wfr_flows.potentials import Potential
from wfr_flows.training import Method
from wfr_flows.typing import Key, Params

_EVALUATION_STEPS = 16
_EVALUATION_PARTICLES = 4096
_NORMALISER_PARTICLES = 32768
_REFINEMENT_RATE = 1e-2
_AVERAGE_DECAY = 0.95


class Problem(NamedTuple):
    """Both ends as distributions."""

    source: Distribution
    target: Distribution


class Exact(NamedTuple):
    """Samples of both ends, the certified distance between them, its semi-coupling."""

    source: Particles
    target: Particles
    result: static.StaticResult
    diracs: static.Diracs


class Evaluation(NamedTuple):
    """Everything the table, the figure and the particle file show of a learned flow."""

    forward: Trajectory
    reverse: Trajectory
    action: jax.Array
    velocity: jax.Array
    cross_entropy: jax.Array | None
    kl: jax.Array | None
    kl_standard_error: jax.Array | None
    momentum_variation: jax.Array
    potential_slope_error: jax.Array
    straightness: jax.Array


def load(options: argparse.Namespace) -> Problem:
    """Read both ends, or raise `InputError` with one sentence."""
    files = [name for name in (options.source, options.target) if name and name not in measures.BUILTIN]
    check_weights(options.weights, files)
    with told_in_one_sentence():
        source = _end(options.source, options.weights)
        target = (
            measures.standard_normal(source.dim)
            if options.target is None
            else _end(options.target, options.weights)
        )
    check_dimensions(source.dim, target.dim)
    return Problem(source, target)


def _end(name: str, weights: str | None) -> Distribution:
    if name in measures.BUILTIN:
        return measures.BUILTIN[name]()
    if not Path(name).suffix and not Path(name).exists():
        raise InputError(f"'{name}' is neither a file nor one of {', '.join(measures.BUILTIN)}.")
    return measures.empirical(read_end(name, weights))


def solve(
    problem: Problem, settings: Settings, out: Path, clock: Clock, console: Console, kept: Kept
) -> dict[str, Any]:
    """All stages; returns what is written to summary.json."""
    keys = iter(jax.random.split(jax.random.key(settings.seed), 8))
    geometry = Geometry(settings.alpha)
    with clock.stage("exact"):
        exact = jax.block_until_ready(_exact(next(keys), problem, settings))
    potential = potentials.resnet(problem.source.dim, width=settings.width)
    begun = jax.jit(potential.init)(next(keys))
    train_key = next(keys)
    params = kept.trained(
        lambda: _train(train_key, problem, settings, potential, begun, exact, clock, console)
    )
    with clock.stage("generation and evaluation"):
        evaluate = jax.jit(lambda key, params: _evaluate(key, problem, potential, geometry, params))
        evaluation: Evaluation = jax.block_until_ready(evaluate(next(keys), params))
        pushed = jax.jit(
            lambda p, s: flow(potential, geometry, p, s, time_grid(_EVALUATION_STEPS), log_det=False).at(-1)
        )
        # How far the flow misses the target.
        end = pushed(params, exact.source)
        missed = _distance(end, exact.target, settings.alpha)
        endpoint = jax.block_until_ready(missed)
    with clock.stage("files"), making(out):
        run = _write_model(out, settings, params)
        _write_particles(out / "particles.npz", exact, evaluation)
        _write_figure(out / "geodesic.png", problem, exact, evaluation, settings.alpha)
    summary = _summary(problem, settings, exact, evaluation, endpoint, clock) | kept.summary()
    summary["run"] = run
    write_json(out / "summary.json", summary)
    return summary


@jax.jit
def _distance(source: Particles, target: Particles, alpha: float) -> static.StaticResult:
    return static.spherical_wfr(source, target, alpha, tolerance=1e-3)


def _exact(key: Key, problem: Problem, settings: Settings) -> Exact:
    source_key, target_key = jax.random.split(key)
    source = problem.source.spread(source_key, settings.num_samples)
    target = problem.target.spread(target_key, settings.num_samples)
    result = _distance(source, target, settings.alpha)
    return Exact(
        source, target, result, jax.jit(static.semi_coupling)(result, source, target, settings.alpha)
    )


def _train(key, problem, settings, potential, params, exact, clock, console) -> Params:
    """Matching, then refinement where the target density is known."""
    match_key, refine_key = jax.random.split(key)
    geometry = Geometry(settings.alpha)
    match = geodesics.matching(potential, geometry, exact.diracs)
    matching = geodesics.matching_method(match, training.cosine_muon(settings.matching_steps))
    of_params, of_average = (attrgetter(name) for name in ("params", "average"))
    with clock.stage("matching"), Bars(console) as bars, training.last_good(of_params, "matching"):
        bars.add("matching", settings.matching_steps)
        state = training.run(
            matching,
            match_key,
            matching.init(params),
            lambda _: (),
            settings.matching_steps,
            chunk_size=250,
            on_chunk=lambda chunk: bars.show("matching", chunk.step, loss=chunk.info[0]),
        )
    if problem.target.log_density is None:
        return state.params
    refinement = _refinement(
        settings,
        potential,
        geometry,
        problem.target,
        lambda params, key: settings.matching_weight * match(params, key),
    )
    with clock.stage("refinement"), Bars(console) as bars, training.last_good(of_average, "refinement"):
        bars.add("refinement", settings.refinement_steps)
        return training.run(
            refinement,
            refine_key,
            refinement.init(state.params),
            measures.spread_ends(problem.source, problem.target, settings.batch),
            settings.refinement_steps,
            chunk_size=20,
            on_chunk=lambda chunk: bars.show("refinement", chunk.step, **chunk.info[1]._asdict()),
        ).average


def _refinement(
    settings: Settings,
    potential: Potential,
    geometry: Geometry,
    target: Distribution,
    regulariser: geodesics.Loss = geodesics.zero_loss,
) -> Method:
    return geodesics.uot_gen(
        potential,
        geometry,
        target.log_density,  # pyright: ignore[reportArgumentType]  there is no refinement without it
        training.cosine_muon(settings.refinement_steps, _REFINEMENT_RATE),
        action_weight=settings.action_weight,
        velocity_weight=settings.velocity_weight,
        num_steps=settings.num_steps,
        average_decay=_AVERAGE_DECAY,
        regulariser=regulariser,
    )


def trained(directory: Path, settings: Settings, dim: int) -> Params:
    """The parameters that a finished run to ``N(0, I)`` saved.

    Raises:
      ValueError: no checkpoint there, or one of another model.
    """
    start = jax.eval_shape(potentials.resnet(dim, width=settings.width).init, jax.random.key(0))
    return training.restore(directory, start, _steps(settings))


def _steps(settings: Settings) -> int:
    return settings.matching_steps + settings.refinement_steps


def _write_model(out: Path, settings: Settings, params: Params) -> str:
    """In place of that of an earlier run; returns what its summary has to name to be of this one."""
    run = str(uuid.uuid4())
    # Settings must never stand beside a checkpoint of other ones.
    (out / "settings.json").unlink(missing_ok=True)
    if (out / "checkpoint").exists():
        shutil.rmtree(out / "checkpoint")
    training.save(out / "checkpoint", _steps(settings), params)
    saved = {"run": run, **dataclasses.asdict(settings)}
    write_atomically(out / "settings.json", json.dumps(saved, indent=2).encode())
    return run


def _evaluate(
    key: Key, problem: Problem, potential: Potential, geometry: Geometry, params: Params
) -> Evaluation:
    source_key, target_key, normaliser_key = jax.random.split(key, 3)
    source = problem.source.spread(source_key, _EVALUATION_PARTICLES)
    target = problem.target.spread(target_key, _EVALUATION_PARTICLES)
    grid = time_grid(_EVALUATION_STEPS)
    raw = geodesics.gauge_flow(potential, geometry, params, source, grid)
    forward = raw._replace(log_weight=jax.nn.log_softmax(raw.log_weight, axis=-1))
    reverse = flow(potential, geometry, params, target.normalise(), grid[::-1], log_det=False)
    jets = geodesics.path_jets(potential, params, raw)
    costs = geodesics.running_costs(geometry, raw, jets)
    cross_entropy = kl = kl_standard_error = None
    if problem.target.log_density is not None:
        many = problem.target.spread(normaliser_key, _NORMALISER_PARTICLES)
        back = geodesics.gauge_flow(potential, geometry, params, many, grid[::-1], log_det=False).at(-1)
        log_density = geodesics.carried_log_density(raw, problem.target.log_density) - jax.nn.logsumexp(
            back.log_weight
        )
        weight = source.normalise().weight
        cross_entropy = -jnp.sum(weight * log_density)
        if problem.source.log_density is not None:
            log_ratio = jax.vmap(problem.source.log_density)(source.position) - log_density
            kl = jnp.sum(weight * log_ratio)
            normaliser_variance = 1 / back.effective_sample_size - 1 / _NORMALISER_PARTICLES
            mean_variance = jnp.sum(weight * (log_ratio - kl) ** 2) / source.effective_sample_size
            kl_standard_error = jnp.sqrt(normaliser_variance + mean_variance)
    return Evaluation(
        forward,
        reverse,
        costs.action,
        costs.velocity,
        cross_entropy,
        kl,
        kl_standard_error,
        metrics.momentum_variation(-jets.gradient, forward.log_weight),
        metrics.slope_error(grid, jnp.sum(jnp.exp(forward.log_weight) * jets.value, axis=1), -costs.action),
        metrics.straightness(forward.position, source.normalise().weight),
    )


def _summary(
    problem: Problem,
    settings,
    exact: Exact,
    evaluation: Evaluation,
    endpoint: static.StaticResult,
    clock: Clock,
) -> dict:
    def number(value) -> float | None:
        return None if value is None or not jnp.isfinite(value) else float(value)

    generated = evaluation.reverse.at(-1)
    return {
        "alpha": settings.alpha if np.isfinite(settings.alpha) else "inf",
        "exact_lower": number(exact.result.lower_bound),
        "exact_upper": number(exact.result.value),
        "exact_converged": bool(exact.result.converged),
        "dimension": problem.source.dim,
        "num_samples": [exact.source.position.shape[0], exact.target.position.shape[0]],
        "action": number(evaluation.action),
        "kl": number(evaluation.kl),
        "kl_standard_error": number(evaluation.kl_standard_error),
        "cross_entropy": number(evaluation.cross_entropy),
        "velocity_residual": number(evaluation.velocity),
        "endpoint_distance": number(endpoint.value),
        "effective_sample_size": number(generated.effective_sample_size),
        "num_generated": generated.position.shape[0],
        "momentum_variation": number(evaluation.momentum_variation),
        "potential_slope_error": number(evaluation.potential_slope_error),
        "straightness": number(evaluation.straightness),
        "seconds": clock.seconds,
        "source_density_known": problem.source.log_density is not None,
        "target_density_known": problem.target.log_density is not None,
        "seed": settings.seed,
        "device": jax.devices()[0].device_kind,
    }


def _write_particles(path: Path, exact: Exact, evaluation: Evaluation) -> None:
    matters = np.asarray(exact.diracs.source_mass + exact.diracs.target_mass) > 1e-10
    generated = evaluation.reverse.at(-1)
    arrays = {
        "position": generated.position,
        "log_weight": generated.log_weight,
        **{f"source_{k}": v for k, v in exact.source._asdict().items()},
        **{f"target_{k}": v for k, v in exact.target._asdict().items()},
        **{f"semi_coupling_{k}": np.asarray(v)[matters] for k, v in exact.diracs._asdict().items()},
        "forward_time": evaluation.forward.time,
        "forward_position": evaluation.forward.position,
        "forward_log_weight": evaluation.forward.log_weight,
    }
    write_arrays(path, {name: np.asarray(value) for name, value in arrays.items()})


def _write_figure(path: Path, problem: Problem, exact: Exact, evaluation: Evaluation, alpha: float) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    # The semi-coupling is an argument, so that its large arrays are no constants of the program.
    geodesic_at = jax.jit(static.spherical_geodesic)
    figure = plotting.geodesic(
        evaluation.forward,
        evaluation.reverse,
        exact_geodesic=lambda t: geodesic_at(exact.diracs, t, alpha),
        source_log_density=problem.source.log_density,
        target_log_density=problem.target.log_density,
    )
    write_figure(path, figure)
