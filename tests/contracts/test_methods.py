"""One contract for all that trains or flows: steps over seeds, in one dimension, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import geodesics, gradient_flows, measures, potentials, proximal, refinement, static
from wfr_flows.dynamics import Geometry, potential_field
from wfr_flows.measures import Particles
from wfr_flows.numerics import is_key

PLAIN = Geometry(1.3, spherical=False)
WASSERSTEIN = Geometry(jnp.inf, spherical=False)
ADAM = optax.adam(1e-2)


def cloud(key, size=12, shift=0.0):
    """Weighted, one of them without weight."""
    position = shift + jax.random.normal(key, (size, 1))
    return Particles(position, jnp.log(jnp.arange(size) / size)).normalise()


def ends(key):
    return cloud(key), cloud(jax.random.split(key)[0], shift=1.0)


def normal():
    return measures.standard_normal(1)


def sample(key, size=16):
    particles = normal().sample(key, size)
    return gradient_flows.Sample(particles, jax.vmap(normal().log_density)(particles.position))


def uot_gen():
    potential = potentials.resnet(1, width=3)
    method = geodesics.uot_gen(potential, Geometry(1.3), normal().log_density, ADAM, num_steps=2)
    return method, potential.init, ends


def matching():
    potential = potentials.mlp(1, width=3, depth=1)
    source, target = jax.jit(ends)(jax.random.key(7))
    diracs = static.Diracs(source.position, target.position, source.weight, target.weight)
    loss = geodesics.matching(potential, Geometry(1.3), diracs, num_times=2, num_pairs=4)
    return geodesics.matching_method(loss, ADAM), potential.init, lambda key: ()


def icnn_jko():
    potential = potentials.icnn(1, width=3)
    energy = gradient_flows.free_energy(normal().log_density)
    method = gradient_flows.icnn_jko(potential, energy, ADAM, num_iterations=2, batch=8)
    return method, lambda key: (key, sample(key)), lambda key: jnp.asarray(0.1)


def annealed():
    potential = potentials.max_affine(1, units=1, pieces=2)

    def towards(log_density):
        energy = gradient_flows.free_energy(log_density)
        return gradient_flows.icnn_jko(potential, energy, ADAM, num_iterations=2, batch=8)

    method = gradient_flows.annealed(towards, normal().log_density, [4.0, 1.0])
    return method, lambda key: (key, sample(key)), lambda key: jnp.asarray(0.1)


def variational_jko():
    energy = gradient_flows.FreeEnergy(gradient_flows.entropy(), lambda x: 0.5 * x @ x)
    method = gradient_flows.variational_jko(
        energy,
        gradient_flows.affine(1),
        gradient_flows.log_ratio(1, depth=0),
        num_iterations=2,
        batch=8,
        start_steps=1,
    )
    return method, lambda key: (key, normal().sample(key, 16)), lambda key: jnp.asarray(0.1)


def langevin():
    method = gradient_flows.langevin(normal().log_density, num_steps=2)
    return method, lambda key: normal().sample(key, 16), lambda key: jnp.asarray(0.1)


def svgd():
    method = gradient_flows.svgd(normal().log_density)
    return method, lambda key: normal().sample(key, 16), lambda key: jnp.asarray(0.1)


def proximal_flow():
    critic, potential = potentials.smooth_critic(1, width=3, depth=1), potentials.mlp(1, width=3, depth=1)
    field = potential_field(potential, WASSERSTEIN)
    method = proximal.proximal(
        field, WASSERSTEIN, critic, ADAM, ADAM, kinetic_weight=0.5, num_steps=2, inner_steps=1
    )
    return method, lambda key: (potential.init(key), critic.init(key)), ends


def q_flow():
    potential, ratio = potentials.mlp(1, width=3, depth=1), potentials.mlp(1, width=3, depth=1)
    field = potential_field(potential, PLAIN)
    method = refinement.q_flow(field, PLAIN, ratio, ADAM, ADAM, num_steps=2, ratio_steps=1)
    return method, lambda key: refinement.init_params(field, ratio, key), ends


def density_ratio():
    ratio = potentials.mlp(1, width=3, depth=1)
    method = refinement.density_ratio(ratio, jnp.linspace(0.0, 1.0, 3), ADAM, num_nodes=2)

    def batch(key):
        return jax.vmap(cloud)(jax.random.split(key, 3))

    return method, ratio.init, batch


BUILDERS = [
    uot_gen,
    matching,
    icnn_jko,
    annealed,
    variational_jko,
    langevin,
    svgd,
    proximal_flow,
    q_flow,
    density_ratio,
]


each = pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)


def stepped(build, call):
    """Start, end and info of two steps over two seeds, by ``call(function, *arguments)``."""
    method, start, batch = build()
    keys = jax.random.split(jax.random.key(3), 2)
    traces = []

    @jax.jit
    @jax.vmap
    def step(key, state, batch):
        traces.append(key)
        return method.step(key, state, batch)

    first = call(jax.jit(jax.vmap(lambda key: method.init(start(key)))), keys)
    batches = call(jax.jit(jax.vmap(batch)), keys)
    second, _ = call(step, keys, first, batches)
    third, info = call(step, keys, second, batches)
    # What comes out goes in again: one program, which a scan accepts.
    assert len(traces) == 1
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (first, second)]
    assert shapes[0] == shapes[1]
    return first, third, info


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@each
def test_a_method_steps_over_seeds(build):
    with jax.enable_x64(False):
        first, last, info = stepped(build, lambda function, *arguments: function(*arguments))
        assert {leaf.dtype for leaf in floats((last, info))} == {jnp.dtype(jnp.float32)}
        assert not any(np.isnan(leaf).any() for leaf in floats((last, info)))
        ends = (map(np.nan_to_num, map(np.asarray, floats(tree))) for tree in (first, last))
        assert any((a != b).any() for a, b in zip(*ends, strict=True))


@each
def test_a_step_keeps_double_precision(build):
    # Of shapes and types alone: the tests of each method run it in double precision.
    _, last, info = stepped(build, jax.eval_shape)
    assert {leaf.dtype for leaf in floats((last, info))} == {jnp.dtype(jnp.float64)}


@each
def test_no_two_leaves_of_a_first_state_share_memory(build):
    method, start, batch = build()
    key = jax.random.key(3)
    begun = start(key)
    given = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(begun) if not is_key(leaf)}
    state = method.init(begun)
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) if not is_key(leaf)]
    # So that the state can be donated, and what it was made of is still there.
    assert len(set(places)) == len(places)
    assert not given & set(places)
