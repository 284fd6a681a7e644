"""What samplers share: the coordinates in which a law has mean 0 and covariance I, and checks."""

import jax
import jax.numpy as jnp

from wfr_flows.gradient_flows import Sample
from wfr_flows.gradient_flows.functionals import LogDensity
from wfr_flows.measures import Distribution, Whitening, whitening
from wfr_flows.typing import Key

_FRAME_PARTICLES = 4096


def check_target(log_density: LogDensity, start: Distribution, num_samples: int) -> None:
    """Refuse what does not fit together, before anything is computed."""
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; give at least 1.")
    point = jax.ShapeDtypeStruct((start.dim,), jnp.result_type(float))
    try:
        shape = jax.eval_shape(log_density, point).shape
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"log_density does not take a point [{start.dim}] of start ({str(error).splitlines()[0]});"
            " give both the same dimension."
        ) from error
    if shape != ():
        raise ValueError(f"log_density of one point has shape {shape}; give a scalar.")
    if start.log_density is None:
        raise ValueError("start has no density; give a law that knows its own, as laplace(...).distribution.")


def frame_of(key: Key, start: Distribution) -> Whitening:
    """The whitening of samples of a law."""
    return whitening(start.spread(key, _FRAME_PARTICLES))


def start_sample(key: Key, start: Distribution, frame: Whitening, num: int) -> Sample:
    """Samples of the start and their log-density, in the frame."""
    assert start.log_density is not None
    particles = start.spread(key, num)
    log_density = jax.vmap(start.log_density)(particles.position) + frame.log_det
    return Sample(particles._replace(position=frame(particles.position)), log_density)
