"""Training beside other libraries: loaders on the host, optax's line searches, equinox, donation, caches."""

import gc
import itertools
import weakref
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import dynamics, measures, potentials, training


def counted(traces, optimiser=None):
    """``½|p - batch|²``, the batch as info; ``traces`` grows whenever JAX looks at the loss."""

    def loss(params, key, batch):
        traces.append(1)
        return 0.5 * jnp.sum((params - batch) ** 2), batch

    return training.gradient_method(loss, optax.sgd(0.5) if optimiser is None else optimiser)


METHOD = counted([])


def train(sample, num_steps, method=METHOD, **options):
    """The last parameters, and every batch in order."""
    seen = []
    options = {"chunk_size": 4, "on_chunk": lambda chunk: seen.append(chunk.info[1]), **options}
    state = options.pop("state", METHOD.init(jnp.zeros(2)))
    state = training.run(method, jax.random.key(0), state, sample, num_steps, **options)
    return state.params, np.concatenate(seen)


def loader():
    return (np.full(2, float(index)) for index in itertools.count())


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
def test_every_step_gets_its_batch_of_an_iterator(chunk_size):
    params, seen = train(loader(), 10, chunk_size=chunk_size)
    np.testing.assert_array_equal(seen, np.repeat(np.arange(10.0), 2).reshape(10, 2))
    # p <- p/2 + batch/2
    np.testing.assert_allclose(params, sum(0.5 ** (10 - k) * k for k in range(10)))


def test_no_batch_is_taken_that_no_step_needs():
    batches = loader()
    train(batches, 10)
    np.testing.assert_array_equal(next(batches), [10.0, 10.0])


def test_the_next_batches_are_fetched_before_a_chunk_is_reported():
    fetched, at_reports = [], []

    def batches():
        for index in itertools.count():
            fetched.append(index)
            yield jnp.full(2, float(index))

    def report(chunk):
        at_reports.append(len(fetched))

    training.run(
        METHOD, jax.random.key(0), METHOD.init(jnp.zeros(2)), batches(), 10, chunk_size=4, on_chunk=report
    )
    assert at_reports == [8, 10, 10]


def test_a_run_on_an_iterator_is_resumed_with_the_same_batches(tmp_path):
    whole, _ = train(loader(), 10)
    half = training.run(METHOD, jax.random.key(0), METHOD.init(jnp.zeros(2)), loader(), 6, chunk_size=4)
    np.testing.assert_array_equal(train(loader(), 10, state=half, start=6)[0], whole)

    def interrupt(chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), training.resumable(tmp_path):
        train(loader(), 10, on_chunk=interrupt)
    with training.resumable(tmp_path):
        resumed, seen = train(loader(), 10)
    np.testing.assert_array_equal(resumed, whole)
    np.testing.assert_array_equal(seen[:, 0], np.arange(10.0))


def test_a_collection_begins_anew_and_an_iterator_ends():
    batches = [np.full(2, float(index)) for index in range(3)]
    np.testing.assert_array_equal(train(batches, 7)[1][:, 0], [0, 1, 2, 0, 1, 2, 0])
    reported = []
    with pytest.raises(ValueError, match="ended after 7 batches"):
        train(itertools.islice(loader(), 7), 10, on_chunk=lambda chunk: reported.append(chunk.step))
    # What was done before is not lost.
    assert reported == [4]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ([np.zeros(2), np.zeros(3)], "batch 1 of sample has shapes"),
        (np.zeros((5, 2)), "sample is a ndarray"),
        (3.0, "sample is a float"),
        (dynamics.Geometry(1.0), "sample is a Geometry"),
        ([], "ended after 0 batches"),
    ],
    ids=lambda value: None,
)
def test_what_is_no_source_of_batches_is_refused(sample, said):
    with pytest.raises(ValueError, match=said):
        train(sample, 3)


@pytest.mark.parametrize(
    "frozen",
    [
        lambda batches, rng: lambda key: next(batches),
        lambda batches, rng: lambda key: jnp.asarray(next(batches)) + jax.random.normal(key, (2,)),
        lambda batches, rng: lambda key: rng.normal(size=2),
        lambda batches, rng: lambda key: float(rng.normal()),
        lambda batches, rng: partial(lambda only, key: next(only), itertools.islice(batches, 1)),
    ],
)
def test_a_sample_that_would_be_frozen_by_tracing_is_refused(frozen):
    with pytest.raises(ValueError, match="Give the iterator of batches itself"):
        train(frozen(loader(), np.random.default_rng(0)), 3)


def test_one_batch_for_all_steps_is_legal():
    data = np.arange(2.0)
    for sample in (lambda key: data, lambda key: jnp.array([0.0, 1.0]), lambda key: np.arange(2.0)):
        np.testing.assert_array_equal(train(sample, 3)[1], np.tile(data, (3, 1)))
    # A number keeps the parameters' precision, as it does in the loss itself.
    state = METHOD.init(jnp.zeros(2, jnp.float32))
    assert training.run(METHOD, jax.random.key(0), state, lambda key: 0.5, 2).params.dtype == jnp.float32


def test_a_method_is_traced_once():
    traces = []
    method = counted(traces)

    def sample(key):
        return jax.random.normal(key, (2,))

    for num_steps in (5, 8):
        train(sample, num_steps, method)
    assert len(traces) == 1
    # Other shapes and other functions are programs of their own.
    train(sample, 5, method, chunk_size=3)
    train(lambda key: jax.random.uniform(key, (2,)), 5, method)
    for _ in range(2):
        train(loader(), 5, method)
    assert len(traces) == 4


def test_programs_go_with_their_functions():
    class Data:
        value = np.ones(2)

    def trained():
        data = Data()
        method = training.gradient_method(
            lambda params, key, batch: (jnp.sum((params - data.value - batch) ** 2), batch), optax.adam(0.1)
        )
        train(lambda key: data.value, 3, method, state=method.init(jnp.zeros(2)))
        return weakref.ref(data)

    gone = trained()
    gc.collect()
    assert gone() is None


def test_line_searches_of_optax_serve_as_optimisers():
    matrix = jnp.diag(jnp.array([1.0, 10.0, 100.0]))

    def loss(params, key, batch):
        return 0.5 * params @ matrix @ params - params.sum(), ()

    method = training.gradient_method(loss, optax.lbfgs())
    state = training.run(method, jax.random.key(0), method.init(jnp.zeros(3)), lambda key: (), 20)
    np.testing.assert_allclose(state.params, [1.0, 0.1, 0.01], rtol=1e-8)
    game = training.minimax(
        lambda inner, key, shown: shown[0] @ inner - 0.5 * inner @ matrix @ inner,
        lambda outer, inner, key, batch: (outer @ inner + 0.5 * jnp.sum((outer - 1) ** 2), ()),
        optax.lbfgs(),
        optax.lbfgs(),
        inner_steps=8,
    )
    state = training.run(game, jax.random.key(0), game.init((jnp.zeros(3), jnp.zeros(3))), lambda key: (), 40)
    # y = A^{-1} x and x = 1 - y
    np.testing.assert_allclose(state.outer, 1 / (1 + 1 / np.diag(matrix)), rtol=1e-6)


def module_potential():
    def init(key):
        return eqx.nn.MLP(3, "scalar", 8, 1, activation=jnp.tanh, key=key)

    def value(params, t, x):
        return params(jnp.append(x, t))

    return potentials.from_function(value, init)


def test_equinox_modules_are_trained():
    potential = module_potential()

    def loss(params, key, batch):
        value = jax.vmap(potential.value, (None, None, 0))(params, jnp.zeros(()), batch)
        return jnp.mean((value - batch[:, 0]) ** 2), ()

    method, losses = training.gradient_method(loss, training.cosine_muon(60), average_decay=0.5), []
    start = method.init(potential.init(jax.random.key(1)))
    state = training.run(
        method,
        jax.random.key(0),
        start,
        lambda key: jax.random.normal(key, (16, 2)),
        60,
        on_chunk=lambda chunk: losses.append(chunk.info[0]),
    )
    assert losses[-1][-1] < 0.2 * losses[0][0]
    assert state.params.activation is state.average.activation is start.params.activation
    assert jax.tree.structure(state.params) == jax.tree.structure(start.params)


def test_a_flow_takes_a_module_and_windows_take_several(key):
    potential, geometry = module_potential(), dynamics.Geometry(2.0, spherical=False)
    measure = measures.particles(np.array([[0.3, 0.1], [-0.2, 0.4]]))
    params = potential.init(key)
    # The same network with its arrays alone as parameters.
    arrays, rest = eqx.partition(params, eqx.is_array)
    plain = potentials.from_function(lambda some, t, x: potential.value(eqx.combine(some, rest), t, x))
    grid = dynamics.time_grid(2)
    for tolerance in (None, 1e-3):
        found = dynamics.flow(potential, geometry, params, measure, grid, tolerance=tolerance)
        expected = dynamics.flow(plain, geometry, arrays, measure, grid, tolerance=tolerance)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    field = dynamics.potential_field(potential, geometry)
    several = dynamics.windowed(field, jnp.array([0.0, 1.0, 3.0]))
    windows, x = several.init(key), jnp.array([0.3, 0.1])
    last = potential.init(jax.random.split(key, 2)[1])
    np.testing.assert_allclose(
        several.rates(windows, jnp.array(2.0), x).velocity,
        0.5 * field.rates(last, jnp.array(0.5), x).velocity,
        rtol=1e-12,
    )


def test_equinox_modules_play_games():
    player = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    game = training.minimax(
        lambda inner, key, shown: (
            jnp.sum(shown[0](jnp.ones(1)) * inner(jnp.ones(1))) - jnp.sum(inner(jnp.ones(1)) ** 2)
        ),
        lambda outer, inner, key, batch: (jnp.sum(outer(jnp.ones(1)) * inner(jnp.ones(1))), ()),
        optax.sgd(0.1),
        optax.sgd(0.1),
        inner_steps=2,
        outer_steps=2,
    )
    start = game.init((player, player))
    state = training.run(game, jax.random.key(0), start, lambda key: (), 3)
    assert not np.allclose(state.outer.layers[0].weight, player.layers[0].weight)
    assert state.outer.activation is player.activation


def test_states_from_init_can_be_donated():
    params = {"weight": jnp.ones(3), "bias": np.zeros(2)}
    method = training.gradient_method(lambda p, key, batch: (jnp.sum(p["weight"]), ()), optax.adam(0.1))
    game = training.minimax(
        lambda inner, key, shown: jnp.sum(inner["weight"]),
        lambda outer, inner, key, batch: (jnp.sum(outer["weight"]), ()),
        optax.adam(0.1),
        optax.adam(0.1),
        inner_steps=1,
    )
    for trained, start in ((method, params), (game, (params, params))):
        jax.jit(trained.step, donate_argnums=1)(jax.random.key(0), trained.init(start), ())
    # Neither are the parameters given away that the state was made of.
    np.testing.assert_array_equal(params["weight"], np.ones(3))
