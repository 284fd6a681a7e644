"""Array aliases and the conventions every module shares.

Conventions (the same everywhere, so that no other file repeats them):

* **Length scale** ``alpha > 0``:
  ``d²_WFR(μ, ν) = inf ∫∫ (½|v|² + ½ alpha g²) ρ dx dt`` subject to ``∂tρ + ∇·(ρv) = ρg``.
  ``alpha = inf`` is half the squared 2-Wasserstein distance, ``½ W₂²``.
* **Sign of the potential**: ``v = -∇Φ``; ``g = -(Φ - Φ̄)/alpha`` (spherical), ``g = -Φ/alpha`` (plain),
  ``g = 0`` (``alpha = inf``). ``Φ̄`` is the mean of ``Φ`` under the current measure.
* **Time** runs from 0 (the source) to 1 (the target). A reversed grid runs the same field backward.
* **Weights** are carried as logarithms. The mass of a measure is ``Σ exp(log_weight)``.
* **Argument order**: ``key``, ``params``, ``t, x``, data; options are keyword-only.
"""

from typing import Any

from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Key = PRNGKeyArray
Params = Any
PyTree = Any
Scalar = Float[Array, ""]

__all__ = ["Array", "ArrayLike", "Bool", "Float", "Int", "Key", "Params", "PyTree", "Scalar"]
