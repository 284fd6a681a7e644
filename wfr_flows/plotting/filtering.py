"""One picture of a filter: mean and spread of every coordinate through time, and every evidence."""

import numpy as np

_COORDINATES = 4


def filtering(
    time: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    log_evidence: np.ndarray,
    *,
    seen: np.ndarray | None = None,
    truth: np.ndarray | None = None,
):
    """Draw what a filter found.

    Args:
      time: ``[K]``.
      mean, deviation: ``[K, d]``; the first four coordinates are drawn, with two standard deviations.
      log_evidence: ``[K]``, of every observation.
      seen: ``[K, d]`` observations of the coordinates themselves, if they are that.
      truth: ``[K, d]`` states, if known.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    count = min(mean.shape[1], _COORDINATES)
    figure = Figure(figsize=(8, 2.2 * (count + 1)), layout="constrained")
    axes = figure.subplots(count + 1, 1, sharex=True, squeeze=False)[:, 0]
    for i, axis in enumerate(axes[:-1]):
        low, high = mean[:, i] - 2 * deviation[:, i], mean[:, i] + 2 * deviation[:, i]
        axis.fill_between(time, low, high, color="tab:blue", alpha=0.25, linewidth=0)
        axis.plot(time, mean[:, i], color="tab:blue", marker=".", label="mean, two deviations")
        if truth is not None:
            axis.plot(time, truth[:, i], color="black", linewidth=1, label="truth")
        if seen is not None:
            axis.plot(time, seen[:, i], "x", color="tab:orange", label="observed")
        axis.set(ylabel="x" + "₁₂₃₄"[i])
    axes[0].legend(frameon=False, ncols=3)
    axes[-1].plot(time, log_evidence, color="tab:green", marker=".")
    axes[-1].set(xlabel="time", ylabel="log-evidence")
    return figure
