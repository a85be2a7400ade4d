"""Selections against a NumPy computation that knows nothing of the module; the walk of m against brute force."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from middo.program import UserError
from middo.thresholds import choose_m, draw, select, threshold


def frame(pre, post, diversity, quality):
    columns = {"loss_pre": pre, "loss_post": post, "diversity": diversity, "quality": quality}
    ids = [f"r{i}" for i in range(len(pre))]
    return pl.DataFrame({"id": ids, **columns}, schema={"id": pl.String} | dict.fromkeys(columns, pl.Float32))


def numpy_tau(column, m):
    array = np.array([np.nan if v is None else v for v in column], dtype=np.float64)
    return array, np.nanmean(array) + m * np.nanstd(array)


@given(data=st.data(), m=st.tuples(st.floats(0, 2), st.floats(-2, 0), st.floats(-2, 0)))
@settings(max_examples=150, deadline=None)
def test_selection_equals_numpy(data, m):
    rows = data.draw(st.integers(3, 40))
    column = st.lists(st.none() | st.floats(-50, 50, width=32), min_size=rows, max_size=rows).filter(
        lambda column: any(v is not None for v in column)
    )
    pre, post, diversity, quality = (data.draw(column) for _ in range(4))
    selected, report = select(
        frame(pre, post, diversity, quality), dict(zip(("complexity", "diversity", "quality"), m, strict=True))
    )
    a, tau_a = numpy_tau(pre, m[0])
    b, tau_b = numpy_tau(post, m[0])
    d, tau_d = numpy_tau(diversity, m[1])
    q, tau_q = numpy_tau(quality, m[2])
    # Values within rounding of τ may fall on either side when the mean is summed in another order.
    clear = lambda x, tau: np.isnan(x) | (np.abs(x - tau) > 1e-9)  # noqa: E731
    for name, mine, sure in (
        ("hard", (a > tau_a) & (b > tau_b), clear(a, tau_a) & clear(b, tau_b)),
        ("sparse", d < tau_d, clear(d, tau_d)),
        ("low", q < tau_q, clear(q, tau_q)),
    ):
        assert (selected[name].to_numpy() == mine)[sure].all()
    assert report["complexity"]["without_signal"] == int((np.isnan(a) | np.isnan(b)).sum())
    assert report["quality"]["without_signal"] == int(np.isnan(q).sum())
    assert report["diversity"]["selected"] == selected["sparse"].sum()


def test_sigma_is_of_the_population():
    found = threshold(pl.Series("x", [1.0, 3.0]), m=2)
    assert found == {"mu": 2.0, "sigma": 1.0, "tau": 4.0}


def test_hard_needs_both_losses():
    signals = frame([0, 0, 0, 9, 9], [0, 0, 9, 0, 9], [1] * 5, [5] * 5)
    selected, _ = select(signals, {"complexity": 0.0})
    assert selected["hard"].to_list() == [False, False, False, False, True]
    assert not selected["low"].any() and not selected["sparse"].any()


def test_equal_values_select_nothing():
    selected, _ = select(frame([1] * 4, [1] * 4, [1] * 4, [1] * 4), {"complexity": 0, "diversity": 0, "quality": 0})
    assert not selected.select(pl.any_horizontal("hard", "sparse", "low").any()).item()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_value_is_an_error_and_not_a_threshold(bad):
    with pytest.raises(UserError, match="loss_post is NaN or infinite for 1 of 3 rows"):
        select(frame([1, 2, 3], [1, bad, 2], [1, 2, 3], [1, 2, 3]), {"complexity": 1})


def test_no_rating_at_all_is_an_error():
    with pytest.raises(UserError, match="quality"):
        select(frame([1, 2], [1, 2], [1, 2], [None, None]), {"quality": -1})


@pytest.mark.parametrize("fixed", [{}, {"diversity": -1.5}, {"complexity": 1.0, "quality": -2.0}])
def test_auto_takes_the_smallest_m_in_range(fixed):
    random = np.random.default_rng(7)
    columns = [random.gamma(2, 1, 600), random.gamma(2, 1, 600), random.beta(8, 2, 600), random.normal(7, 1.5, 600)]
    signals = frame(*(column.tolist() for column in columns))
    settings = {axis: fixed.get(axis, "auto") for axis in ("complexity", "diversity", "quality")}
    chosen = choose_m(signals, settings)
    assert {axis: chosen[axis] for axis in fixed} == fixed

    signs = {"complexity": 1, "diversity": -1, "quality": -1}
    options = [[fixed[axis]] if axis in fixed else [0.5 * sign * i for i in range(9)] for axis, sign in signs.items()]
    inside = []
    for m in itertools.product(*options):
        a, b, d, q = (c.astype(np.float32).astype(np.float64) for c in columns)
        above = [x > x.mean() + m[0] * x.std() for x in (a, b)]
        union = (above[0] & above[1]) | (d < d.mean() + m[1] * d.std()) | (q < q.mean() + m[2] * q.std())
        if 0.10 <= union.mean() <= 0.20:
            inside.append(m)
    assert tuple(chosen.values()) in inside
    assert sum(map(abs, chosen.values())) == min(sum(map(abs, m)) for m in inside)


def test_auto_says_what_can_be_had_where_nothing_fits():
    quality = [0.0] * 5 + [1.0] * 5
    with pytest.raises(UserError, match=r"nearest shares are 0\.0% and 50\.0%"):
        choose_m(frame([1] * 10, [1] * 10, [1] * 10, quality), {"quality": "auto"})


@given(rows=st.integers(1, 60), wanted=st.integers(0, 70), seed=st.text(max_size=5), order=st.randoms())
def test_a_draw_takes_as_many_rows_whatever_their_order(rows, wanted, seed, order):
    table = frame(*[[None] * rows] * 4)
    like = {"complexity": {"selected": wanted}, "quality": {"selected": 1}}
    drawn, report = draw(table, ["complexity", "quality"], like, seed)
    assert drawn["hard"].sum() == report["complexity"]["selected"] == min(wanted, rows)
    assert (drawn["low"].sum(), drawn["sparse"].sum(), list(report)) == (1, 0, ["complexity", "quality"])
    places = list(range(rows))
    order.shuffle(places)
    again, _ = draw(table[places], ["complexity", "quality"], like, seed)
    assert again.filter("hard")["id"].sort().equals(drawn.filter("hard")["id"].sort())


def test_every_row_is_drawn_as_often():
    table, like = frame(*[[None] * 10] * 4), {"diversity": {"selected": 3}}
    times = np.zeros(10)
    for seed in range(2000):
        times += draw(table, ["diversity"], like, f"{seed} random/iter1")[0]["sparse"].to_numpy()
    # Five standard deviations of a binomial draw.
    assert abs(times - 600).max() < 5 * (2000 * 0.3 * 0.7) ** 0.5
