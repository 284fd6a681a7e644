"""Benchmarks of wfr_flows: run one as ``python -m benchmarks.speed.training_step``."""
