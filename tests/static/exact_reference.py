"""Log-entropy transport between a few particles in sixty digits: the dual, by a barrier and Newton's method.

Independent of the package, and of the scales of the problem: inputs are the floats as they are.
"""

from decimal import Decimal, Overflow, getcontext

getcontext().prec = 60
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
_DIGITS = Decimal(10) ** -22


def _cos(angle):
    term, total, k = Decimal(1), Decimal(1), 0
    while abs(term) > Decimal(10) ** -58:
        k += 2
        term *= -angle * angle / (k * (k - 1))
        total += term
    return total


def _distance_squared(x, y):
    return sum((Decimal(float(a)) - Decimal(float(b))) ** 2 for a, b in zip(x, y, strict=True))


def _solve(matrix, right):
    """Gaussian elimination of a definite system."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    found = [Decimal(0)] * size
    for i in reversed(range(size)):
        found[i] = (rows[i][-1] - sum(rows[i][j] * found[j] for j in range(i + 1, size))) / rows[i][i]
    return found


def _maximise(weight, pairs, scale, flat):
    """Dual value and bound of ``Σ w (1 - e^-p)`` (``Σ w p`` if flat) subject to ``p_i + p_j <= c``."""
    size, mass = len(weight), sum(weight)
    some = [c for _, _, c in pairs if c > 0]
    level = min([*some, Decimal(1)]) / 2 if not flat else scale
    p = [-level] * size
    barrier = mass * max(scale, Decimal(10) ** -300) / len(pairs)

    def value(p):
        return sum(w * (q if flat else 1 - (-q).exp()) for w, q in zip(weight, p, strict=True))

    def merit(p):
        slack = [c - p[i] - p[j] for i, j, c in pairs]
        try:
            return None if min(slack) <= 0 else value(p) + barrier * sum(s.ln() for s in slack)
        except Overflow:
            return None

    for _ in range(4000):
        slack = [c - p[i] - p[j] for i, j, c in pairs]
        tilted = [w if flat else w * (-q).exp() for w, q in zip(weight, p, strict=True)]
        gradient = list(tilted)
        hessian = [[Decimal(0)] * size for _ in range(size)]
        for i in range(size):
            hessian[i][i] = Decimal(0) if flat else tilted[i]
        for (i, j, _), s in zip(pairs, slack, strict=True):
            for a in (i, j):
                gradient[a] -= barrier / s
                for b in (i, j):
                    hessian[a][b] += barrier / s**2
        if flat:
            # The constant that can be added to one side and taken from the other.
            hessian[0][0] *= 2
        step = _solve(hessian, gradient)
        decrement = sum(a * b for a, b in zip(step, gradient, strict=True))
        if decrement < barrier * Decimal("1e-3"):
            if barrier * len(pairs) <= _DIGITS * abs(value(p)) or barrier < Decimal(10) ** -600:
                return value(p), value(p) + 2 * barrier * len(pairs)
            barrier /= 8
            continue
        length, before = Decimal(1), merit(p)
        while True:
            moved = [q + length * s for q, s in zip(p, step, strict=True)]
            after = merit(moved)
            if after is not None and after >= before:
                break
            length /= 2
        p = moved
    raise AssertionError("the reference did not converge")


def bounds(kind, x, w, y, v, alpha):
    """Bounds on the value, 22 digits apart.

    Args:
      kind: ``"cone"``, ``"quadratic"`` or ``"euclidean"``.
      x, y: positions.
      w, v: weights, as `Decimal`.
      alpha: a float, or ``inf``, which asks for equal masses.
    """
    flat = alpha == float("inf")
    penalty = Decimal(1) if flat else 2 * Decimal(float(alpha))
    pairs, alone = [], Decimal(0)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            squared = _distance_squared(a, b)
            if kind == "euclidean":
                cost = squared.sqrt()
            elif kind == "quadratic" or flat:
                cost = squared / 2
            else:
                angle = (squared / (2 * penalty)).sqrt()
                if angle >= _PI / 2:
                    continue
                cost = -2 * penalty * _cos(angle).ln()
            pairs.append((i, len(x) + j, cost / penalty))
    weight = [*w, *v]
    used = sorted({k for i, j, _ in pairs for k in (i, j)})
    alone = sum((weight[k] for k in range(len(weight)) if k not in used), Decimal(0))
    if not pairs:
        return penalty * alone, penalty * alone
    number = {k: new for new, k in enumerate(used)}
    scale = max(c for *_, c in pairs)
    if scale == 0 and flat:
        return Decimal(0), Decimal(0)
    pairs = [(number[i], number[j], c) for i, j, c in pairs]
    low, high = _maximise([weight[k] for k in used], pairs, scale or Decimal(1), flat)
    return penalty * (low + alone), penalty * (high + alone)
