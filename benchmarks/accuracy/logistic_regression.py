"""Bayesian logistic regression without an intercept: the samplers side by side, on the papers' examples.

Generated: twonorm and ringnorm (7400 rows, 20 features as they are), waveform (5000 rows, standardised, one
class against the other two, as in the binary version that the papers use). With ``--tables DIRECTORY`` also
the CSV files of german, pima, splice and image there, last column the label. 80 % of the rows are learned
from. ``published`` are accuracy and mean log-likelihood of ICNN-JKO from one split of each set.

First the mean over ``--splits`` of importance sampling beside scikit-learn's logistic regression without an
intercept, of penalty 1, then on the first split all samplers, begun at ``--start``: accuracy and
log-likelihood of the mean probability, the log-evidence, and the greatest differences over coordinates to
long chains of NUTS (``mean_error`` in its standard deviations, ``deviation_error`` relative). Seconds are
those of the CPU, with compilation but for the start. scikit-learn and blackjax may be absent; so are then
their numbers.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import nuts
from benchmarks.common import installed, parser, report, rounded
from wfr_flows import inference, potentials
from wfr_flows.dynamics import Geometry
from wfr_flows.geodesics import generator
from wfr_flows.inference import Labelled, Laplace, LogisticRegression, NestedLaplace, Sampler, Weighted
from wfr_flows.measures import moments

# Accuracy and log-likelihood of ICNN-JKO in https://github.com/PetrMokrov/Large-Scale-Wasserstein-Gradient-Flows
PUBLISHED = {
    "twonorm": (0.982, -0.058),
    "ringnorm": (0.740, -0.499),
    "waveform": (0.781, -0.487),
    "german": (0.670, -0.599),
    "pima": (0.773, -0.451),
    "splice": (0.835, -0.366),
    "image": (0.818, -0.444),
}
# The classes against the rest; the papers do not say which.
FILES = {
    "german": ("statlog-german-credit.csv", (1,)),
    "pima": ("pima.csv", (1,)),
    "splice": ("molec-biol-splice.csv", (2,)),
    "image": ("statlog-image.csv", (0, 1, 2)),
}
STARTS = ("laplace", "nested_laplace")
GENERATED = ("twonorm", "ringnorm", "waveform0", "waveform1", "waveform2")


def example(name: str, seed: int, options: argparse.Namespace) -> tuple[Labelled, Labelled]:
    """Rows to learn from, and to test on."""
    draw_key, split_key = jax.random.split(jax.random.key(seed))
    if name in FILES:
        file, chosen = FILES[name]
        table = inference.against_rest(inference.read_labelled(options.tables / file), *chosen)
        return inference.split(split_key, table)
    if name.startswith("waveform"):
        table = inference.waveform(draw_key, min(5000, options.rows))
        train, test = inference.split(split_key, inference.against_rest(table, int(name[-1])))
        return inference.standardised(train, train), inference.standardised(test, train)
    return inference.split(split_key, getattr(inference, name)(draw_key, options.rows))


def samplers(options: argparse.Namespace, dim: int) -> dict[str, tuple[Sampler, int]]:
    """Name -> sampler and number of samples."""
    tiny = {"num_iterations": 3, "batch": 64, "pool": 256} if options.smoke else {}
    learned = {}
    if options.smoke:
        sizes = {"matching_steps": 0, "refinement_steps": 3, "batch": 64, "num_steps": 2}
        learned = {"generator": generator(potentials.resnet(dim, width=4), Geometry(2.0), **sizes)}
    many, few = options.samples, min(options.samples, 400)
    steps = 5 if options.smoke else 500
    chosen: dict[str, tuple[Sampler, int]] = {
        "importance": (inference.sample_by_importance, many),
        "icnn_jko": (partial(inference.sample_by_icnn_jko, **tiny), many),
        "variational_jko": (partial(inference.sample_by_variational_jko, **tiny), many),
        "uot_gen": (partial(inference.sample_by_uot_gen, **learned), many),
        "svgd": (partial(inference.sample_by_svgd, num_steps=steps), few),
    }
    return {name: chosen[name] for name in options.samplers}


def plain(train: Labelled, test: Labelled) -> inference.Score | None:
    """scikit-learn's logistic regression without an intercept."""
    if not installed("sklearn"):
        return None
    from sklearn.linear_model import LogisticRegression as Plain  # noqa: PLC0415

    fitted = Plain(fit_intercept=False, max_iter=1000).fit(
        np.asarray(train.features), np.asarray(train.label)
    )
    return inference.score(jnp.asarray(fitted.predict_proba(test.features)[:, 1]), test.label)


@jax.jit
def approximate(model: LogisticRegression) -> tuple[Laplace, NestedLaplace]:
    once = inference.laplace(model.log_density, jnp.zeros(model.dim))
    return once, inference.nested_laplace(model.log_density, once.mode)


def regression(options: argparse.Namespace, train: Labelled) -> LogisticRegression:
    return inference.logistic_regression(train.features, train.label, shape=options.shape, rate=options.rate)


def scores(prefix: str, found: inference.Score | None) -> dict:
    return {} if found is None else {prefix + name: float(value) for name, value in found._asdict().items()}


def over_splits(name: str, options: argparse.Namespace) -> dict:
    """Means over splits of importance sampling, and of scikit-learn beside it."""
    records = []
    for seed in range(options.splits):
        train, test = example(name, seed, options)
        model = regression(options, train)
        start = approximate(model)[STARTS.index(options.start)].distribution
        found = inference.sample_by_importance(jax.random.key(seed), model.log_density, start, 2048)
        ours = inference.score(model.predict(found.particles, test.features), test.label)
        records.append(scores("", ours) | scores("plain_", plain(train, test)))
    return {key: float(np.mean([record[key] for record in records])) for key in records[0]}


def compared(found: Weighted, reference: nuts.Chains | None) -> dict:
    record = {"effective_sample_size": float(found.particles.effective_sample_size)}
    if np.isfinite(found.tail_shape):
        record["tail_shape"] = float(found.tail_shape)
    if bool(jnp.isfinite(found.log_evidence)):
        record["log_evidence"] = float(found.log_evidence)
        record["log_evidence_standard_error"] = float(found.standard_error)
    if reference is not None:
        mean, covariance = moments(found.particles)
        deviation = jnp.sqrt(jnp.diagonal(covariance))
        record["mean_error"] = float(jnp.max(jnp.abs(mean - reference.mean) / reference.deviation))
        record["deviation_error"] = float(jnp.max(jnp.abs(deviation / reference.deviation - 1)))
    return record


def side_by_side(name: str, options: argparse.Namespace, emit: Callable[..., None]) -> None:
    """All samplers on the first split."""
    train, test = example(name, 0, options)
    model = regression(options, train)
    since = time.process_time()
    both = jax.block_until_ready(approximate(model))
    start = both[STARTS.index(options.start)]
    emit(
        example=name, method=options.start, converged=bool(start.converged),
        **rounded({"log_evidence": float(start.log_evidence), "cpu_seconds": time.process_time() - since}, 6),
    )  # fmt: skip
    reference = None
    if nuts.AVAILABLE and options.draws > 0:
        since = time.process_time()
        run = partial(nuts.chains, log_density=model.log_density, start=both[0], num_chains=4)
        run = jax.jit(partial(run, num_draws=options.draws, warm_up=options.warm_up))
        reference = jax.block_until_ready(run(jax.random.key(7)))
        emit(
            example=name, method="nuts",
            **rounded({
                "effective_sample_size": float(reference.effective_sample_size),
                "scale_reduction": float(reference.split),
                "divergent": float(reference.divergent),
                "cpu_seconds": time.process_time() - since,
            }),
        )  # fmt: skip
    for method, (sampler, num) in samplers(options, model.dim).items():
        since = time.process_time()
        found = jax.block_until_ready(sampler(jax.random.key(1), model.log_density, start.distribution, num))
        seconds = time.process_time() - since
        ours = inference.score(model.predict(found.particles, test.features), test.label)
        record = scores("", ours) | compared(found, reference) | {"cpu_seconds": seconds}
        emit(example=name, method=method, **rounded(record, 6))


def arguments() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--tables", type=Path, help="directory of the CSV files; generated data only without"
    )
    options.add_argument("--examples", nargs="+", help="all by default")
    options.add_argument(
        "--samplers", nargs="+", default=["importance", "icnn_jko", "variational_jko", "uot_gen", "svgd"]
    )
    options.add_argument("--start", choices=STARTS, default="nested_laplace", help="where samplers begin")
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--samples", type=int, default=8192)
    options.add_argument("--shape", type=float, default=1.0, help="of the prior Gamma of the precision (1)")
    options.add_argument(
        "--rate", type=float, default=0.01, help="of it (.01, as printed; 100 in their code)"
    )
    options.add_argument("--draws", type=int, default=5000, help="of each of 4 chains of NUTS; 0 for none")
    options = options.parse_args()
    options.rows, options.warm_up = 7400, 1000
    if options.examples is None:
        options.examples = [*GENERATED, *(FILES if options.tables else ())]
    if options.smoke:
        options.examples, options.splits, options.samples, options.rows = ["twonorm"], 1, 1024, 2000
        options.draws, options.warm_up = 0, 10
    return options


def main() -> None:
    options = arguments()
    with report("accuracy/logistic_regression", options) as emit:
        for name in options.examples:
            published = dict(zip(("accuracy", "log_likelihood"), PUBLISHED[name.rstrip("012")], strict=True))
            emit(
                example=name,
                splits=options.splits,
                **rounded(over_splits(name, options)),
                published=published,
            )
            side_by_side(name, options, emit)


if __name__ == "__main__":
    main()
