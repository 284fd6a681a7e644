"""Internal energies as suprema over ratios of densities, which samples alone can estimate."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.measures import Distribution, Particles, moments, uniform_ball, uniform_box, whitening
from wfr_flows.numerics import FDivergence, generalized_entropy, kl, lattice
from wfr_flows.typing import Array, Float, Key, Scalar


class Reference(NamedTuple):
    """A law ``Γ`` to draw from and to evaluate.

    Attributes:
      sample: ``(key, n) -> [n, d]``, evenly spread where that is known.
      log_density: ``[n, d] -> [n]``.
    """

    sample: Callable[[Key, int], Float[Array, "n d"]]
    log_density: Callable[[Float[Array, "n d"]], Float[Array, " n"]]


class ReferenceFn(Protocol):
    """``Particles -> Reference``: a law whose support holds the particles, and what they move to."""

    def __call__(self, measure: Particles, /) -> Reference: ...


class Internal(NamedTuple):
    """An internal energy ``U(ρ) = sup_h E_ρ[w f'(h) + e] - E_Γ[w f*(f'(h))]``, attained at ``h = ρ/γ``.

    Attributes:
      divergence: ``f`` with its conjugate.
      reference: ``Γ``, made anew for the particles of every step.
      local: ``log γ(y) -> (w, e)``.
      base: ``y: [d] -> log b(y)``; with it the ratios are ``h = exp(u) b/γ``. None for ``h = exp(u)``.
    """

    divergence: FDivergence
    reference: ReferenceFn
    local: Callable[[Array], tuple[Array, Array]]
    base: LogDensity | None = None


def entropy(
    scale: float = 1.0, *, reference: ReferenceFn | None = None, base: LogDensity | None = None
) -> Internal:
    """``scale ∫ρ log ρ = scale (KL(ρ|Γ) + E_ρ log γ)`` ([VWGF] proposition 1).

    Together with the potential ``-scale log q`` this is ``scale KL(ρ|q)`` up to a constant, for any
    unnormalised density ``q``.

    Args:
      scale: the temperature, above 0.
      reference: `gaussian_reference` by default.
      base: ``log b`` of a density like ``ρ``, up to a constant, which ratios begin at. Near the end of a flow
        to ``q`` let it be ``log q``: the gradients of entropy and potential then cancel but for ``∇u``, which
        is small, and so is its noise. The reference must then be positive everywhere. Far from ``q`` it is
        harder to learn than a ratio of ``ρ`` to ``Γ``.

    Raises:
      ValueError: ``scale`` not positive.
    """
    _check_scale(scale)
    return Internal(
        kl(),
        gaussian_reference() if reference is None else reference,
        lambda log_gamma: (jnp.full_like(log_gamma, scale), scale * log_gamma),
        base,
    )


def power_entropy(m: float, scale: float = 1.0, *, reference: ReferenceFn | None = None) -> Internal:
    """``scale/(m-1) ∫ρ^m``, whose flow is the porous medium equation ``∂ₜρ = scale Δρ^m``.

    With ``p = h γ`` the supremum is that of ``scale (E_ρ[m/(m-1) p^(m-1)] - ∫p^m)``, in which the integral
    is a mean over ``Γ``. For ``Γ`` uniform on a set of volume ``Ω`` the weight is ``Ω^(1-m)`` ([VWGF]
    proposition 2); any other law whose support holds that of ``ρ`` serves as well.

    Args:
      m: above 1.
      scale: above 0.
      reference: `box_reference` by default.

    Raises:
      ValueError: a number out of its range.
    """
    _check_scale(scale)

    def local(log_gamma: Array) -> tuple[Array, Array]:
        weight = scale * jnp.exp((m - 1) * log_gamma)
        return weight, weight / (m - 1)

    return Internal(generalized_entropy(m), box_reference() if reference is None else reference, local)


def gaussian_reference(widen: float = 1.0) -> ReferenceFn:
    """The Gaussian with the moments of the particles, its covariance times ``widen``."""

    def reference(measure: Particles) -> Reference:
        seen = whitening(measure)
        dim, dtype = seen.centre.size, seen.centre.dtype
        log_normaliser = 0.5 * dim * math.log(2 * math.pi * widen) + seen.log_det

        def sample(key: Key, n: int) -> Float[Array, "n d"]:
            noise = jax.scipy.special.ndtri(lattice(key, n, dim).astype(dtype))
            return seen.back(math.sqrt(widen) * noise)

        def log_density(x: Float[Array, "n d"]) -> Float[Array, " n"]:
            return -0.5 * jnp.sum(seen(x) ** 2, axis=1) / widen - log_normaliser

        return Reference(sample, log_density)

    return reference


def box_reference(margin: float = 0.25) -> ReferenceFn:
    """Uniform on the smallest box that holds the particles, wider by ``margin`` of its sides on each side."""

    def reference(measure: Particles) -> Reference:
        low, high = measure.position.min(axis=0), measure.position.max(axis=0)
        return _of(uniform_box(low - margin * (high - low), high + margin * (high - low)))

    return reference


def ball_reference(margin: float = 0.25) -> ReferenceFn:
    """Uniform on the ball about the mean that holds the particles, its radius greater by ``margin`` of it."""

    def reference(measure: Particles) -> Reference:
        mean, _ = moments(measure)
        radius = jnp.max(jnp.linalg.norm(measure.position - mean, axis=1))
        return _of(uniform_ball(mean, (1 + margin) * radius))

    return reference


def _of(law: Distribution) -> Reference:
    return Reference(lambda key, n: law.spread(key, n).position, jax.vmap(law.log_density))  # pyright: ignore


def dual_value(
    internal: Internal,
    measure: Particles,
    log_ratio: Float[Array, " n"],
    log_gamma: Float[Array, " n"],
    reference_log_ratio: Float[Array, " m"],
    reference_log_gamma: Float[Array, " m"],
) -> Scalar:
    """The dual value of an internal energy for a given ``h``: at most the energy, in the mean over samples.

    Args:
      internal: which energy.
      measure: samples ``y`` of ``ρ``, of mass 1.
      log_ratio, log_gamma: ``log h`` and ``log γ`` at them.
      reference_log_ratio, reference_log_gamma: both at samples of ``Γ``.
    """
    weight, offset = internal.local(log_gamma)
    slope, _ = internal.divergence.dual(log_ratio)
    reference_weight, _ = internal.local(reference_log_gamma)
    _, conjugate = internal.divergence.dual(reference_log_ratio)
    inside = jnp.sum(measure.weight * (weight * slope + offset))
    return inside - jnp.mean(reference_weight * conjugate)


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"scale is {scale}; give a number above 0.")
