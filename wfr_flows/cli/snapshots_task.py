"""A field through snapshots: where it carries the first one, and its rates at every point."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wfr_flows import geodesics, static
from wfr_flows.cli.times import TimeUnits
from wfr_flows.cli.units import Units
from wfr_flows.dynamics import Field, Geometry, Trajectory, batched
from wfr_flows.geodesics import Chain
from wfr_flows.measures import Components, Particles, Snapshots, padded
from wfr_flows.static import StaticResult
from wfr_flows.typing import Params, Scalar

_STEPS_IN_A_WINDOW = 16
_ONE_SIDED = 1e-4


class Task(NamedTuple):
    """The snapshots, along components if any, in units of their spread, and what brings them back.

    Attributes:
      time_units: units of time to learn in.
      label: what the table has in place of a time, where that is no number.
      hold_out: time that is left out of training, if any.
    """

    snapshots: Snapshots
    geometry: Geometry
    units: Units
    components: Components | None
    time_units: TimeUnits
    label: dict[float, str]
    hold_out: float | None

    @property
    def seen(self) -> Snapshots:
        """Snapshots to learn from."""
        return self.snapshots if self.hold_out is None else self.snapshots.without(self.hold_out)

    @property
    def dim(self) -> int:
        """Of what is learned."""
        return self.snapshots.measure[0].position.shape[1]


class Learned(NamedTuple):
    """A field and its parameters, for a `Task`."""

    field: Field
    params: Params
    chain: Chain


@partial(jax.jit, static_argnums=0)
def at_mass_1(
    distance: Callable[[Particles, Particles], StaticResult], first: Particles, last: Particles
) -> Scalar:
    """A distance between the normalised measures; compiled once for a function and shapes."""
    return distance(first.normalise(), last.normalise()).value


def carried(task: Task, learned: Learned) -> Trajectory:
    """The first snapshot through all times, those held out among them."""
    times = jnp.asarray(task.time_units.nodes(task.snapshots.time), learned.chain.time.dtype)
    carry = jax.jit(partial(geodesics.push, learned.field, task.geometry, num_steps=_STEPS_IN_A_WINDOW))
    return carry(learned.params, task.snapshots.measure[0], times)


def misfits(task: Task, trajectory: Trajectory) -> dict[str, list[float]]:
    """At every time but the first: ``W₁`` at mass 1 between what was carried there and the snapshot, mass."""
    measures = task.snapshots.measure[1:]
    largest = max(measure.log_weight.size for measure in measures)
    distances, errors = [], []
    for index, measure in enumerate(measures, start=1):
        there = trajectory.at(index * (_STEPS_IN_A_WINDOW + 1) - 1)
        distances.append(
            float(at_mass_1(static.wasserstein_1, there, padded(measure, largest))) * task.units.spread
        )
        errors.append(abs(float(there.mass) / float(measure.mass) - 1))
    return {"wasserstein_1": distances, "relative_mass_error": errors}


def at_the_points(task: Task, learned: Learned) -> dict[str, np.ndarray]:
    """Velocity, growth and mass at every row of the table, per unit of its time.

    Where two windows meet, the mean of both. Mass is what a point of mass 1 has become at the next snapshot.
    """
    snapshots, units = task.snapshots, task.time_units
    nodes, rates_at = units.nodes(snapshots.time), jax.jit(batched(learned.field))
    last = nodes[-1]
    total = sum(len(row) for row in snapshots.row)
    velocity, growth, mass = (
        np.empty((total, task.dim)),
        np.empty(total),
        np.ones(total),
    )
    push = jax.jit(partial(geodesics.push, learned.field, task.geometry, num_steps=_STEPS_IN_A_WINDOW))
    largest = max(len(row) for row in snapshots.row)
    for index, (now, measure, row) in enumerate(zip(nodes, *snapshots[1:], strict=True)):
        full = padded(measure._replace(log_weight=jnp.zeros_like(measure.log_weight)), largest)
        inside = [t for t in (now - _ONE_SIDED * last, now + _ONE_SIDED * last) if 0 < t < last]
        both = [rates_at(learned.params, jnp.asarray(t, full.position.dtype), full.position) for t in inside]
        pace = [units.pace(t) for t in inside]
        speed = np.mean([p * np.asarray(r.velocity) for p, r in zip(pace, both, strict=True)], axis=0)
        velocity[row] = speed[: len(row)] * task.units.spread
        rate = np.mean([p * np.asarray(r.growth) for p, r in zip(pace, both, strict=True)], axis=0)
        growth[row] = rate[: len(row)]
        if now < last:
            window = jnp.asarray(nodes[index : index + 2], full.position.dtype)
            carried = push(learned.params, full._replace(log_weight=jnp.zeros(largest)), window)
            mass[row] = np.exp(carried.log_weight[-1])[: len(row)]
    return {"velocity": velocity, "growth": growth, "mass": mass}
