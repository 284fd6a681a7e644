"""Wasserstein-Fisher-Rao geometry in JAX."""
