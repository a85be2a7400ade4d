"""Selection by thresholds τ = μ + m·σ on the signals of a dataset version (method section 2; paper, section 3 and B.3).

Signals are Polars series in dataset order, null where a row has none; μ and σ (population) are over the rows that have
one. The tables below are the only place that says which signal belongs to which axis and on which side of τ it selects.
"""

import hashlib
from itertools import product

import polars as pl

from middo.program import UserError

# axis -> its signals; all of them must be beyond their own τ, above it for a positive sign, below for a negative one.
SIGNALS = {"complexity": ("loss_pre", "loss_post"), "diversity": ("diversity",), "quality": ("quality",)}
SIGN = {"complexity": 1, "diversity": -1, "quality": -1}
COLUMN = {"complexity": "hard", "diversity": "sparse", "quality": "low"}
GRID_STEP, GRID_END = 0.5, 4.0
SHARE_MIN, SHARE_MAX = 0.10, 0.20


def threshold(values: pl.Series, m: float) -> dict[str, float]:
    """μ, σ and τ = μ + m·σ of one signal, in the signal's unit; over the non-null values, in float64.

    Raises UserError where there is no value, or a value is NaN or infinite.
    """
    present = values.drop_nulls().cast(pl.Float64).rechunk()
    if not len(present):
        raise UserError(f"No row has a value for {values.name}: this axis can't be used. See the log of its step.")
    broken = len(present) - int(present.is_finite().sum())
    if broken:
        raise UserError(f"{values.name} is NaN or infinite for {broken} of {len(values)} rows: did training diverge?")
    mu, sigma = float(present.mean()), float(present.std(ddof=0))
    return {"mu": mu, "sigma": sigma, "tau": mu + m * sigma}


def beyond(signals: pl.DataFrame, axis: str, m: float) -> tuple[pl.Series, dict[str, dict[str, float]]]:
    """Which rows an axis selects at m (booleans, false where a signal is null), and μ, σ, τ per signal."""
    chosen = pl.Series(COLUMN[axis], [True]).new_from_index(0, signals.height)
    limits = {}
    for name in SIGNALS[axis]:
        limits[name] = threshold(signals[name], m)
        values, tau = signals[name].cast(pl.Float64), limits[name]["tau"]
        chosen &= (values > tau if SIGN[axis] > 0 else values < tau).fill_null(False)
    return chosen.alias(COLUMN[axis]), limits


def choose_m(signals: pl.DataFrame, settings: dict[str, float | str]) -> dict[str, float]:
    """Replace each `auto` in {axis: m} by the walk of paper B.3.

    The grid is |m| = 0, 0.5 … 4 with the axis's sign. Of the combinations whose union of selected rows is 10 to 20 % of
    all rows, the one with the smallest sum of |m| is taken; ties go to the smallest largest |m|, then to the union
    nearest to 15 %, then to the smaller |m| in the order complexity, diversity, quality.
    Raises UserError, with the shares that can be had, where no combination lies in that range.
    """
    if "auto" not in settings.values():
        return dict(settings)
    steps = [GRID_STEP * i for i in range(int(GRID_END / GRID_STEP) + 1)]
    options = {axis: [SIGN[axis] * step for step in steps] if m == "auto" else [m] for axis, m in settings.items()}
    masks = {(axis, m): beyond(signals, axis, m)[0].to_numpy() for axis, values in options.items() for m in values}
    found, shares = [], []
    for combination in product(*options.values()):
        union = sum(masks[pair] for pair in zip(options, combination, strict=True)) > 0
        share = float(union.mean())
        shares.append(share)
        if SHARE_MIN <= share <= SHARE_MAX:
            sizes = [abs(m) for m in combination]
            found.append((sum(sizes), max(sizes), abs(share - 0.15), sizes, combination))
    if not found:
        below = max((s for s in shares if s < SHARE_MIN), default=None)
        above = min((s for s in shares if s > SHARE_MAX), default=None)
        near = " and ".join(f"{share:.1%}" for share in (below, above) if share is not None)
        raise UserError(
            f"m: auto finds no thresholds that select 10 to 20 % of the {signals.height} rows; the nearest shares are "
            f"{near}. Set complexity.m, diversity.m and quality.m to numbers."
        )
    return dict(zip(options, min(found)[-1], strict=True))


def select(signals: pl.DataFrame, m: dict[str, float]) -> tuple[pl.DataFrame, dict[str, dict]]:
    """Add the columns hard, sparse, low to `signals` (false for axes not in `m`), and report per axis.

    The report of an axis: m, per signal μ, σ, τ, the number and share selected, the number of rows without a signal.
    """
    selected, report = signals, {}
    for axis, column in COLUMN.items():
        if axis not in m:
            selected = selected.with_columns(pl.lit(False).alias(column))
            continue
        chosen, limits = beyond(signals, axis, m[axis])
        missing = int(
            pl.select(pl.any_horizontal(*(signals[name].is_null() for name in SIGNALS[axis]))).to_series().sum()
        )
        selected = selected.with_columns(chosen)
        report[axis] = {
            "m": m[axis],
            "thresholds": limits,
            "selected": int(chosen.sum()),
            "share": float(chosen.mean()),
            "without_signal": missing,
        }
    return selected, report


def draw(
    signals: pl.DataFrame, axes: list[str], like: dict[str, dict], seed: str
) -> tuple[pl.DataFrame, dict[str, dict]]:
    """As `select`, but at random: on each axis as many rows as the report `like` counts, or all where there are fewer.

    Taken are the rows whose SHA-256 of "<seed> <axis> <id>" is smallest: the draw depends on nothing else.
    """
    selected, report = signals, {}
    for axis, column in COLUMN.items():
        if axis not in axes:
            selected = selected.with_columns(pl.lit(False).alias(column))
            continue
        ranked = sorted(signals["id"], key=lambda row: hashlib.sha256(f"{seed} {axis} {row}".encode()).digest())
        chosen = signals["id"].is_in(ranked[: like[axis]["selected"]])
        selected = selected.with_columns(chosen.alias(column))
        report[axis] = {
            "m": None,
            "thresholds": {},
            "drawn": seed,
            "selected": int(chosen.sum()),
            "share": float(chosen.mean()),
            "without_signal": 0,
        }
    return selected, report
