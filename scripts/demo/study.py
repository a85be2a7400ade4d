"""Put the runs of a study into one table and two figures: does each signal find its fault, and does the loop pay?

From the files of study_seed.py, one per world. Writes runs.csv (world, strategy, iteration, accuracy in percent) and
detection.csv (world, version, axis, lift, AUROC, …), the raw numbers; table.md: per strategy the accuracy of the tuned
model before the loop (init) and in each iteration, over worlds mean ± standard deviation, what the best iteration
gained and what the method's best is above it, both world by world; per axis lift and AUROC in the first iteration with
the 95 % interval of the mean (Student's t). The best iteration of a strategy is the same in all worlds.

    python scripts/demo/study.py --seeds seed1.json seed2.json --runs runs.csv --detection detection.csv \\
        --table table.md --accuracy accuracy.png --lift lift.png
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl

from middo import program
from middo.files import atomic, read_json, write_text
from middo.program import say
from middo.versions import SEED, iteration_of, strategy_of

# The strategy that all others are compared with.
METHOD = "middo"
# 97.5 % points of Student's t by degrees of freedom; beyond them the normal distribution's will do.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--seeds", type=Path, nargs="+", required=True, help="what study_seed.py wrote, one per world")
    for name in ("runs", "detection", "table", "accuracy", "lift"):
        made.add_argument(f"--{name}", type=Path, required=True, help=f"file to write: {name}")
    return made


def runs_of(seeds: list[dict[str, Any]]) -> pl.DataFrame:
    """world, strategy, iteration, accuracy; the seed version is iteration 0 of every strategy."""
    lines = []
    for seed in seeds:
        names = [line["version"] for line in seed["versions"]]
        strategies = dict.fromkeys(strategy_of(name) for name in names if name != SEED)
        for line in seed["versions"]:
            of = strategies if line["version"] == SEED else [strategy_of(line["version"])]
            lines += [(seed["seed"], strategy, iteration_of(line["version"]), line["accuracy"]) for strategy in of]
    return pl.DataFrame(lines, schema=["world", "strategy", "iteration", "accuracy"], orient="row")


def detection_of(seeds: list[dict[str, Any]]) -> pl.DataFrame:
    """What detection.json says of every version and axis; lift and auroc are null where there was no fault to find."""
    schema = {"world": int, "version": str, "axis": str, "rows": int, "faults": int, "selected": int, "hits": int}
    lines = [{"world": seed["seed"], **line} for seed in seeds for line in seed["detection"]]
    return pl.DataFrame(lines, schema=schema | {"lift": float, "auroc": float})


def best_iterations(runs: pl.DataFrame) -> dict[str, int]:
    """Of each strategy the iteration after the seed with the highest mean accuracy; of equal ones the first.

    One for all worlds: the best of each world by itself would count luck as gain.
    """
    means = runs.filter(pl.col("iteration") > 0).group_by("strategy", "iteration").agg(pl.col("accuracy").mean())
    ordered = means.sort(["accuracy", "iteration"], descending=[True, False])
    return dict(
        ordered.unique("strategy", keep="first", maintain_order=True).select("strategy", "iteration").iter_rows()
    )


def at(runs: pl.DataFrame, strategy: str, iteration: int) -> list[float]:
    """Accuracy of a strategy's iteration in each world, in the order of the worlds."""
    found = runs.filter((pl.col("strategy") == strategy) & (pl.col("iteration") == iteration))
    return found.sort("world")["accuracy"].to_list()


def mean_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and the 95 % interval of the mean; of one value the value itself."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = T.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def within_one(values: tuple[float, float, float]) -> list[float]:
    """What the interval leaves of the range of an AUROC, which Student's t does not know of."""
    return [min(1.0, value) for value in values]


def spread(values: list[float]) -> str:
    """mean ± standard deviation."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def differences(left: list[float], right: list[float]) -> list[float]:
    """Left minus right, world by world."""
    return [a - b for a, b in zip(left, right, strict=True)]


def accuracy_table(runs: pl.DataFrame) -> list[str]:
    """Per strategy the accuracy of each iteration, the best's gain over init, how far the method's best is above."""
    worlds, iterations = runs["world"].n_unique(), sorted(runs["iteration"].unique())
    best = best_iterations(runs)
    ours = at(runs, METHOD, best[METHOD])
    lines = [f"Held-out accuracy in percent, {worlds} worlds, mean ± standard deviation over worlds:", ""]
    names = ["init", *(f"iter{number}" for number in iterations[1:])]
    lines += [
        f"| strategy | {' | '.join(names)} | best − init | {METHOD}'s best − best |",
        "|---" * (len(names) + 3) + "|",
    ]
    for strategy in runs["strategy"].unique(maintain_order=True):
        means = [spread(at(runs, strategy, number)) for number in iterations]
        means[best[strategy]] = f"**{means[best[strategy]]}**"
        values = at(runs, strategy, best[strategy])
        ahead = spread(differences(ours, values)) if strategy != METHOD else ""
        gain = spread(differences(values, at(runs, strategy, 0)))
        lines.append(f"| {strategy} | {' | '.join(means)} | {gain} | {ahead} |")
    return lines


def detection_table(detection: pl.DataFrame) -> list[str]:
    """Per axis lift and AUROC of the method's first selection; worlds in which it selected nothing are not counted."""
    lines = ["What the first selection finds, mean and 95 % interval of the mean:", ""]
    lines += ["| axis | worlds | rows selected | lift | AUROC |", "|---|---|---|---|---|"]
    for (axis,), group in first_selections(detection).group_by("axis", maintain_order=True):
        lift, area = (mean_interval(group[name].to_list()) for name in ("lift", "auroc"))
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*lift), "{:.2f} ({:.2f} to {:.2f})".format(*within_one(area))]
        share = spread((100 * group["selected"] / group["rows"]).to_list())
        lines.append(f"| {axis} | {group.height} | {share} % | {' | '.join(cells)} |")
    return lines


def table(runs: pl.DataFrame, detection: pl.DataFrame) -> str:
    """Both tables as Markdown."""
    return "\n".join([*accuracy_table(runs), "", *detection_table(detection)]) + "\n"


def first_selections(detection: pl.DataFrame) -> pl.DataFrame:
    """Detection in the method's first iteration, where there was a fault to find."""
    return detection.filter(pl.col("version") == f"{METHOD}/iter1").drop_nulls(["lift", "auroc"])


def draw_accuracy(runs: pl.DataFrame, path: Path) -> None:
    """Mean accuracy against iteration, a line per strategy.

    Bands: the standard deviation over worlds of the gain since init, for worlds differ in how hard they are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="iteration", ylabel="held-out accuracy (%)")
    iterations = sorted(runs["iteration"].unique())
    for strategy in runs["strategy"].unique(maintain_order=True):
        init = at(runs, strategy, 0)
        means = [statistics.fmean(at(runs, strategy, number)) for number in iterations]
        gains = [differences(at(runs, strategy, number), init) for number in iterations]
        main = strategy in (METHOD, "random", "none")
        (line,) = axes.plot(
            iterations, means, marker="o", linewidth=2 if main else 1, linestyle="-" if main else ":", label=strategy
        )
        if main and len(init) > 1:
            low, high = (
                [m + sign * statistics.stdev(g) for m, g in zip(means, gains, strict=True)] for sign in (-1, 1)
            )
            axes.fill_between(iterations, low, high, color=line.get_color(), alpha=0.15)
    axes.set_xticks(iterations)
    axes.legend(frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def draw_lift(detection: pl.DataFrame, path: Path) -> None:
    """Selected share and lift of each axis over the method's iterations: a point per world, a bar for the mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    ours = detection.filter(pl.col("version").str.starts_with(f"{METHOD}/"))
    ours = ours.with_columns(
        iteration=pl.col("version").str.extract(r"iter(\d+)$").cast(pl.Int64),
        share=100 * pl.col("selected") / pl.col("rows"),
    )
    left, right = figure.subplots(1, 2)
    names = sorted(ours["axis"].unique())
    for place, name in enumerate(names):
        for axes, column in ((left, "share"), (right, "lift")):
            group = ours.filter(pl.col("axis") == name)
            x = group["iteration"].to_numpy() + (place - 1) * 0.27
            axes.plot(x, group[column].to_numpy(), "o", color=f"C{place}", markersize=3, alpha=0.6)
            means = group.group_by("iteration").agg(pl.col(column).mean()).sort("iteration")
            axes.bar(
                means["iteration"] + (place - 1) * 0.27, means[column], 0.25, color=f"C{place}", alpha=0.4, label=name
            )
    left.set(xlabel="iteration", ylabel="rows selected (%)")
    right.set(xlabel="iteration", ylabel="lift over a random draw")
    right.axhline(1, color="grey", linewidth=0.8)
    for axes in (left, right):
        axes.set_xticks(sorted(ours["iteration"].unique()))
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main(args: argparse.Namespace) -> None:
    seeds = sorted((read_json(path) for path in args.seeds), key=lambda seed: seed["seed"])
    runs, detection = runs_of(seeds), detection_of(seeds)
    for frame, path in ((runs, args.runs), (detection, args.detection)):
        with atomic(path) as temporary:
            frame.write_csv(temporary)
    text = table(runs, detection)
    write_text(args.table, text)
    draw_accuracy(runs, args.accuracy)
    draw_lift(detection, args.lift)
    for line in text.splitlines():
        say(line)


if __name__ == "__main__":
    program.run(main, arguments(), environment="figures")
