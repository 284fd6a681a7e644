"""Bayesian inference with weighted flows: posteriors from prior samples and likelihoods."""

from wfr_flows.inference import filtering as filtering
from wfr_flows.inference.bernoulli import Bernoulli, bernoulli
from wfr_flows.inference.importance import Laplace, Weighted, adapted, laplace, weigh
from wfr_flows.inference.jko_samplers import sample_by_icnn_jko, sample_by_variational_jko
from wfr_flows.inference.labelled import (
    Labelled,
    against_rest,
    fetch_labelled,
    read_labelled,
    ringnorm,
    split,
    standardised,
    twonorm,
    waveform,
)
from wfr_flows.inference.logistic_regression import LogisticRegression, Score, logistic_regression, score
from wfr_flows.inference.nested import NestedLaplace, nested_laplace
from wfr_flows.inference.pareto import fit_generalised_pareto, pareto_smoothed
from wfr_flows.inference.posterior import log_evidence, posterior
from wfr_flows.inference.samplers import (
    Sampler,
    sample_by_importance,
    sample_by_svgd,
    sample_by_uot_gen,
)

__all__ = [
    "Bernoulli",
    "Labelled",
    "Laplace",
    "LogisticRegression",
    "NestedLaplace",
    "Sampler",
    "Score",
    "Weighted",
    "adapted",
    "against_rest",
    "bernoulli",
    "fetch_labelled",
    "fit_generalised_pareto",
    "laplace",
    "log_evidence",
    "logistic_regression",
    "nested_laplace",
    "pareto_smoothed",
    "posterior",
    "read_labelled",
    "ringnorm",
    "sample_by_icnn_jko",
    "sample_by_importance",
    "sample_by_svgd",
    "sample_by_uot_gen",
    "sample_by_variational_jko",
    "score",
    "split",
    "standardised",
    "twonorm",
    "waveform",
    "weigh",
]
