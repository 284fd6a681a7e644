"""``wfr-flows posterior``: from prior samples and their likelihood to a generator of the posterior."""

import argparse
import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from wfr_flows import inference, measures
from wfr_flows.cli import model
from wfr_flows.cli.directory import check_directory, refuse_to_replace
from wfr_flows.cli.files import (
    check_weights,
    told_in_one_sentence,
    write_arrays,
    write_figure,
    write_json,
)
from wfr_flows.cli.options import (
    InputError,
    add_resume,
    add_run,
    add_training,
    count,
    positive_or_inf,
    subcommand,
)
from wfr_flows.cli.progress import Bars, Clock
from wfr_flows.cli.settings import Training
from wfr_flows.cli.table import complain, printed_as_json, screen
from wfr_flows.cli.unfinished import keeping
from wfr_flows.geodesics import MANY_DIMENSIONS, Online
from wfr_flows.measures import Particles
from wfr_flows.training import Chunk
from wfr_flows.typing import Array, Float, Key, Scalar

DESCRIPTION = """\
Learn a posterior from samples of the prior and the log-likelihood at each of them.

FILE is CSV with a header, or NPZ: one column (or array) is the log-likelihood, one may hold weights, where
the samples come from a proposal instead of the prior; all other columns are the coordinates. The samples
are weighed by their likelihood, and a spherical Wasserstein-Fisher-Rao geodesic is learned from them to
N(0, I). Its reverse flow generates as many weighted samples of the posterior as you like, and it gives the
density.

Writes summary.json, posterior.npz, posterior.png, model.json and checkpoint/ into the output directory, where
`wfr-flows generate` and `wfr-flows density` find the model.
"""

RESULTS = ("summary.json", "posterior.npz", "posterior.png", *model.FILES)
"""What a run writes."""

_FEW = 100
_FEW_DIMENSIONS = 20
# Effective points, equal rows counted once, below which nothing is learned.
_LEAST = 2
# Resolution of log-likelihoods that they should have at least.
_COARSE = 1e-2
# In a full and in a quick run.
_USUAL = {"matching_steps": (2000, 1000), "refinement_steps": (300, 100), "batch": (1024, 512)}
_MANY = {name: (MANY_DIMENSIONS[name],) * 2 for name in _USUAL}
_MANY["refinement_steps"] = MANY_DIMENSIONS["refinement_steps"], 200
_RATES = {name: value for name, value in MANY_DIMENSIONS.items() if name not in _USUAL}
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Settings(Training):
    """Everything beside the file that decides the result of a run."""

    log_likelihood: str
    samples: int
    num_pairs: int


class Moments(NamedTuple):
    """Of a weighted sample: each coordinate's mean, its standard error, the standard deviation."""

    mean: Float[Array, " d"]
    standard_error: Float[Array, " d"]
    standard_deviation: Float[Array, " d"]


class Evaluation(NamedTuple):
    """Everything the table, the figure and the files show."""

    generated: Particles
    data_moments: Moments
    generated_moments: Moments
    cross_entropy: Scalar
    gaussian_cross_entropy: Scalar


def add_parser(commands) -> None:
    """Add the subcommand to an argparse collection."""
    parser = subcommand(
        commands,
        "posterior",
        run,
        help="learn a posterior from prior samples and their log-likelihood",
        description=DESCRIPTION,
        example="prior.csv --out result",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="CSV or NPZ file of prior samples")
    add(
        "--log-likelihood",
        metavar="NAME",
        default="log_likelihood",
        help="its column or array (default log_likelihood)",
    )
    add("--weights", metavar="NAME", help="weight column or array (default: weight, if present)")
    add(
        "--alpha",
        type=positive_or_inf,
        default=1.0,
        help="length scale, where the samples have covariance I; inf is optimal transport (default 1)",
    )
    add("--samples", type=count, default=4096, help="how many samples to generate (default 4096)")
    add_run(parser, "wfr-posterior")
    add_resume(parser)
    add_training(
        parser.add_argument_group("tuning"),
        **{
            name: f"{_said(*both)}; in more than {_FEW_DIMENSIONS} dimensions {_said(*_MANY[name])}"
            for name, both in _USUAL.items()
        },
        matching_weight=1.0,
    )


def run(options: argparse.Namespace) -> int:
    """Run the job; see `DESCRIPTION`."""
    prior, log_likelihood = _load(options)
    settings, out, clock = _settings(options, prior.position.shape[1]), options.out, Clock()
    check_directory(out)
    refuse_to_replace(out, (*RESULTS, "settings.json"), [options.file], ours=model.is_marked(out))
    _check_spread(options, prior, log_likelihood)
    console = screen(options)
    shape = model.Shape(
        prior.position.shape[1], settings.width, settings.alpha, settings.num_steps, settings.float64
    )
    keys = jax.random.split(jax.random.key(settings.seed))
    # Only differences count in training; the largest is 0, so that nothing is lost to single precision.
    shift = float(log_likelihood[np.isfinite(prior.log_weight)].max())
    likelihood = jnp.asarray(log_likelihood - shift, prior.log_weight.dtype)
    with keeping(options, [options.file]) as kept:
        model.mark(out)
        state = kept.trained(lambda: _learn(keys[0], prior, likelihood, shape, settings, clock, console))
        with clock.stage("generation and evaluation"):
            assert state.learned is not None
            learned = model.Model(shape.dimension, shape.untrained(), state.learned)
            evaluation = jax.block_until_ready(_evaluate(keys[1], learned, state.particles, settings.samples))
        with clock.stage("files"):
            _write_samples(out, learned, state.particles, evaluation.generated)
        summary = _summary(options.file, settings, prior, state, shift, evaluation, clock) | kept.summary()
        # The model last: one that is complete stands beside its own results.
        write_json(out / "summary.json", summary)
        model.save(out, shape, state.learned)
    if not printed_as_json(summary, options):
        _report(console, summary, out)
    size = summary["effective_sample_size"]["data"] or 0.0
    if size < _FEW:
        unknown = " and knows no spread in some directions" if size <= shape.dimension else ""
        complain(
            f"all rests on {size:.3g} effective samples{unknown}; give more, or samples nearer to the"
            " posterior with their weights."
        )
    return kept.exit_code()


def _load(options: argparse.Namespace) -> tuple[Particles, np.ndarray]:
    """Weighted samples of the prior and their log-likelihoods, not all of them zero."""
    name, path = options.log_likelihood, options.file
    check_weights(options.weights, [path])
    with told_in_one_sentence():
        prior, values = measures.read_with_column(path, name, weight=options.weights)
    wrong = np.isnan(values) | (values == np.inf)
    if wrong.any():
        raise InputError(
            f"{path}: '{name}' holds NaN or +inf (first: row {int(wrong.argmax())}); give finite logarithms,"
            " or -inf where the likelihood is zero."
        )
    if not np.isfinite(values + np.asarray(prior.log_weight)).any():
        raise InputError(
            f"{path}: '{name}' is -inf wherever a sample has weight; give samples nearer to the data."
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(np.square(np.ptp(np.asarray(prior.position), axis=0))).all():
            raise InputError(
                f"{path} is so wide that its variance overflows {prior.position.dtype}; rescale it."
            )
    return prior, values


def _check_spread(options: argparse.Namespace, prior: Particles, values: np.ndarray) -> None:
    """Refuse what leaves no spread to learn: placeholders, or less than two points that matter."""
    path, name = options.file, options.log_likelihood
    log_weight = np.asarray(prior.log_weight, np.float64) + values
    best = np.max(values[np.isfinite(log_weight)])
    if np.spacing(abs(best)) > _COARSE:
        raise InputError(
            f"{path}: the largest '{name}' is {best:.4g}, where double precision knows no differences of 1;"
            " give log-likelihoods, not placeholders."
        )
    _, point = np.unique(np.asarray(prior.position), axis=0, return_inverse=True)
    share = np.bincount(point.reshape(-1), np.exp(log_weight - log_weight.max()))
    size = share.sum() ** 2 / np.sum(share**2)
    if size < _LEAST:
        raise InputError(
            f"{path}: all rests on {size:.3g} effective points, which have no spread; give more samples, or"
            " samples nearer to the posterior with their weights."
        )


def _said(full: int, quick: int) -> str:
    return f"{full}" if full == quick else f"{full}, quick {quick}"


def _settings(options: argparse.Namespace, dim: int) -> Settings:
    # Who asks for plans gets what goes with them.
    usual = _MANY if dim > _FEW_DIMENSIONS and options.matching_steps is None else _USUAL
    return Settings.of(options, usual, num_pairs=500 if options.quick else 2000)


def _learn(
    key: Key,
    prior: Particles,
    log_likelihood: Array,
    shape: model.Shape,
    settings: Settings,
    clock: Clock,
    console: Console,
) -> Online:
    """Train, with a bar and the seconds of either phase."""
    steps = {"matching": settings.matching_steps, "refinement": settings.refinement_steps}
    since = time.perf_counter()

    def on_chunk(phase: str, chunk: Chunk) -> None:
        nonlocal since
        bars.show(phase, chunk.step, loss=chunk.info[0])
        if chunk.step == steps[phase]:
            clock.seconds[phase] = round(time.perf_counter() - since, 3)
            since = time.perf_counter()
            if phase == "matching":
                bars.add("refinement", steps["refinement"])

    generator = shape.generator(
        num_pairs=settings.num_pairs,
        matching_steps=settings.matching_steps,
        refinement_steps=settings.refinement_steps,
        batch=settings.batch,
        action_weight=settings.action_weight,
        velocity_weight=settings.velocity_weight,
        matching_weight=settings.matching_weight,
        on_chunk=on_chunk,
        **(_RATES if settings.matching_steps == 0 else {}),
    )
    with Bars(console) as bars:
        bars.add(*next(phase for phase in steps.items() if phase[1]))
        return jax.block_until_ready(inference.posterior(key, generator, prior, log_likelihood))


def _evaluate(key: Key, learned: model.Model, data: Particles, size: int) -> Evaluation:
    generated = model.sample(learned, key, size)
    log_density = model.log_density(learned, data.position)
    weight = data.weight
    # A sample of weight zero does not count, even where its density vanishes.
    cross_entropy = -jnp.sum(jnp.where(weight > 0, weight * log_density, 0.0))
    # What a Gaussian of the data's mean and covariance would have.
    log_det = learned.learned.whitening.log_det
    gaussian = 0.5 * learned.dimension * math.log(2 * math.pi * math.e) + log_det
    return Evaluation(generated, _moments(data), _moments(generated), cross_entropy, gaussian)


@jax.jit
def _moments(measure: Particles) -> Moments:
    weight = measure.normalise().weight[:, None]
    mean = jnp.sum(weight * measure.position, axis=0)
    apart = measure.position - mean
    error = jnp.sqrt(jnp.sum((weight * apart) ** 2, axis=0))
    return Moments(mean, error, jnp.sqrt(jnp.sum(weight * apart**2, axis=0)))


def _write_samples(out: Path, learned: model.Model, data: Particles, generated: Particles) -> None:
    from wfr_flows import plotting  # noqa: PLC0415  matplotlib is slow to import

    write_arrays(
        out / "posterior.npz", {name: np.asarray(value) for name, value in generated._asdict().items()}
    )
    figure = plotting.posterior(
        data, generated, log_density=lambda x: model.log_density(learned, jnp.asarray(x))
    )
    write_figure(out / "posterior.png", figure)


def _summary(
    file: str,
    settings: Settings,
    prior: Particles,
    state: Online,
    shift: float,
    evaluation: Evaluation,
    clock: Clock,
) -> dict[str, Any]:
    def number(value) -> float | None:
        return float(value) if math.isfinite(value) else None

    def numbers(values: Array) -> list[float | None]:
        return [number(value) for value in np.asarray(values)]

    # Delta method: the evidence is the ratio of two weighted sums.
    moved = state.particles.weight - prior.normalise().weight
    generated = evaluation.generated
    ends = {"data": evaluation.data_moments, "generated": evaluation.generated_moments}
    return {
        "file": file,
        "dimension": prior.position.shape[1],
        "num_data": prior.position.shape[0],
        "num_generated": settings.samples,
        "log_evidence": number(float(state.log_evidence) + shift),
        "log_evidence_standard_error": number(jnp.sqrt(jnp.sum(moved**2))),
        "effective_sample_size": {
            "data": number(state.effective_sample_size),
            "generated": number(generated.effective_sample_size),
        },
        **{
            name: {end: numbers(getattr(moments, name)) for end, moments in ends.items()}
            for name in Moments._fields
        },
        "cross_entropy": number(evaluation.cross_entropy),
        "gaussian_cross_entropy": number(evaluation.gaussian_cross_entropy),
        "seconds": clock.seconds,
        "settings": {
            **dataclasses.asdict(settings),
            "alpha": settings.alpha if math.isfinite(settings.alpha) else "inf",
        },
        "precision": str(prior.position.dtype),
        "device": jax.devices()[0].device_kind,
    }


def _report(console: Console, summary: dict[str, Any], out: Path) -> None:
    def show(value: float | None, digits: str = "#.4g") -> str:
        return "not finite" if value is None else f"{value:{digits}}"

    size, total = summary["effective_sample_size"], {"data": "num_data", "generated": "num_generated"}
    error = show(summary["log_evidence_standard_error"], ".2g")
    table = Table("", "data", "generated", title=f"Posterior, alpha = {summary['settings']['alpha']}")
    table.add_row("log-evidence", f"{show(summary['log_evidence'], '.3f')} ± {error}", "")
    table.add_row(
        "effective sample size",
        *(f"{show(size[end], '.0f')} of {summary[total[end]]}" for end in ("data", "generated")),
    )
    for i in range(min(summary["dimension"], _SHOWN)):
        mean = {end: show(summary["mean"][end][i]) for end in total}
        spread = {end: show(summary["standard_deviation"][end][i]) for end in total}
        error = show(summary["standard_error"]["data"][i], ".2g")
        table.add_row(f"mean of x{i + 1}", f"{mean['data']} ± {error}", mean["generated"])
        table.add_row(f"standard deviation of x{i + 1}", spread["data"], spread["generated"])
    table.add_row("cross-entropy", "", show(summary["cross_entropy"], ".4f"))
    table.add_row("cross-entropy of a Gaussian", "", show(summary["gaussian_cross_entropy"], ".4f"))
    console.print(table)
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
    console.print(f"Seconds: {seconds}", soft_wrap=True)
    if summary["dimension"] > _SHOWN:
        console.print(f"The other {summary['dimension'] - _SHOWN} coordinates are in summary.json.")
    console.print(f"Written to {out}: {', '.join(RESULTS)}/", markup=False, soft_wrap=True)
