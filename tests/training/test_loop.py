"""The loop: resumable, chunk-independent, guarded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wfr_flows import training

METHOD = training.gradient_method(
    lambda params, key, batch: (jnp.sum((params - batch) ** 2), jnp.sum(params)), optax.adam(0.1)
)


def sample(key):
    return jax.random.normal(key, (3,))


def train(state, num_steps, **options):
    return training.run(METHOD, jax.random.key(1), state, sample, num_steps, **options)


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 100])
def test_result_does_not_depend_on_the_chunks(chunk_size):
    expected = train(METHOD.init(jnp.zeros(3)), 10, chunk_size=5)
    found = train(METHOD.init(jnp.zeros(3)), 10, chunk_size=chunk_size)
    # A scan of one step is no loop, and may be rounded otherwise.
    rtol = 1e-14 if chunk_size == 1 else 0
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol), found, expected)


def test_resumed_run_equals_the_uninterrupted_one(tmp_path):
    start = METHOD.init(jnp.zeros(3))
    whole = train(start, 12, chunk_size=4)
    half = train(start, 6, chunk_size=4)
    training.save(tmp_path, 6, half)
    assert training.latest_step(tmp_path) == 6
    resumed = train(training.restore(tmp_path, start), 12, start=6, chunk_size=4)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_loop_finds_the_mean_of_the_batches():
    state = train(METHOD.init(jnp.full(3, 5.0)), 400, chunk_size=100)
    # Adam at a constant rate hovers within a few rates of the optimum.
    assert np.abs(state.params).max() < 0.6


def test_every_step_is_reported_once():
    chunks = []
    train(METHOD.init(jnp.zeros(3)), 10, chunk_size=4, on_chunk=chunks.append)
    assert [chunk.step for chunk in chunks] == [4, 8, 10]
    assert [chunk.info[0].shape[0] for chunk in chunks] == [4, 4, 2]


def test_non_finite_step_is_named_and_the_last_good_state_kept():
    def loss(params, key, batch):
        count, _ = params["count"], batch
        broken = jnp.where(count > 6.5, jnp.nan, 1.0)
        return -count * broken, ()

    method = training.gradient_method(loss, optax.sgd(1.0))
    start = method.init({"count": jnp.zeros(())})
    with pytest.raises(training.NonFiniteError, match="step 7") as caught:
        training.run(method, jax.random.key(0), start, lambda key: (), 20, chunk_size=5)
    assert caught.value.step == 7
    assert caught.value.state.params["count"] == 7.0


def test_missing_checkpoint_is_named(tmp_path):
    assert training.latest_step(tmp_path / "nothing") is None
    with pytest.raises(ValueError, match="holds no checkpoint"):
        training.restore(tmp_path, METHOD.init(jnp.zeros(3)))


def test_checkpoint_of_another_model_is_refused(tmp_path):
    training.save(tmp_path, 1, METHOD.init(jnp.zeros(3)))
    with pytest.raises(ValueError, match="another model"):
        training.restore(tmp_path, {"other": jnp.zeros(4)})


def test_old_checkpoints_are_cleared(tmp_path):
    for step in range(4):
        training.save(tmp_path, step, METHOD.init(jnp.full(3, float(step))))
    assert training.latest_step(tmp_path) == 3
    kept = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert kept == [2, 3]


def test_training_vmaps_over_seeds():
    step = jax.vmap(METHOD.step, (0, None, 0))
    keys = jax.random.split(jax.random.key(0), 5)
    state, info = step(keys, METHOD.init(jnp.zeros(3)), jax.vmap(sample)(keys))
    assert state.params.shape == (5, 3)
    assert info[0].shape == (5,)


@pytest.mark.parametrize("steps_done", [6, 12, 17])
def test_interrupted_runs_go_on_where_they_were(tmp_path, steps_done):
    def two_runs(tell):
        chunks = []

        def on_chunk(chunk):
            chunks.append(chunk)
            tell()

        first = train(METHOD.init(jnp.zeros(3)), 10, chunk_size=3, on_chunk=on_chunk)
        last = train(METHOD.init(first.params), 9, chunk_size=4, on_chunk=on_chunk)
        return (last, jnp.concatenate([chunk.info[0] for chunk in chunks])), len(chunks)

    def interrupt():
        nonlocal steps_done
        steps_done -= 3
        if steps_done <= 0:
            raise KeyboardInterrupt

    expected, in_one_go = two_runs(lambda: None)
    with pytest.raises(KeyboardInterrupt), training.resumable(tmp_path):
        two_runs(interrupt)
    with training.resumable(tmp_path):
        found, on_the_way = two_runs(lambda: None)
    assert on_the_way < in_one_go
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_more_steps_kept_than_asked_for_are_refused(tmp_path):
    start = METHOD.init(jnp.zeros(3))
    for num_steps in (6, 8):
        with training.resumable(tmp_path, seconds=0.0):
            state = train(start, num_steps, chunk_size=3)
    assert isinstance(state.params, jax.Array)
    with pytest.raises(training.CheckpointError, match="8 steps are kept"), training.resumable(tmp_path):
        train(start, 6)
