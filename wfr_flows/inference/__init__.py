"""Bayesian inference with weighted flows: posteriors from prior samples and likelihoods."""

from wfr_flows.inference import filtering as filtering
from wfr_flows.inference.bernoulli import Bernoulli, bernoulli
from wfr_flows.inference.posterior import log_evidence, posterior

__all__ = ["Bernoulli", "bernoulli", "log_evidence", "posterior"]
