"""Sharded over devices, everything agrees with one device: particles need all-reduces only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from wfr_flows import dynamics, geodesics, measures, potentials
from wfr_flows.measures import Particles


@pytest.fixture
def sharding():
    count = len(jax.devices())
    if count == 1:
        pytest.skip("one device only")
    mesh = jax.make_mesh((count,), ("particles",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("particles"))


def test_objective_and_generation_agree_with_one_device(key, sharding):
    potential, geometry = potentials.resnet(2, width=8), dynamics.Geometry(1.5)
    params = potential.init(key)
    measure = Particles(jax.random.normal(key, (64, 2)), jnp.linspace(-1.0, 0.0, 64))
    evaluate = geodesics.objective(potential, geometry, measures.standard_normal(2).log_density, num_steps=3)

    @jax.jit
    def both(params, measure):
        gradient = jax.grad(lambda p: evaluate(p, measure, measure).total)(params)
        return gradient, geodesics.generate(potential, geometry, params, measure, num_steps=3)

    alone = both(params, measure)
    split = both(params, jax.device_put(measure, sharding))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), alone, split)
