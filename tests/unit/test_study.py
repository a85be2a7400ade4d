"""The study's tables against numbers by hand, its configs by the schema; its figures are drawn."""

import json
import subprocess
import sys

import polars as pl
import pytest
import yaml
from conftest import ROOT
from demo.study import accuracy_table, best_iterations, detection_of, detection_table, mean_interval, runs_of, spread
from demo.study_config import check_study, experiment_of
from demo.study_seed import collect

from middo.config import FOLDER, check_config, load_yaml
from middo.lock import hold
from middo.program import UserError

MEASURED = ROOT / "tests/benchmarks/demo-study"
SEEDS = [
    {
        "seed": seed,
        "versions": [
            {"version": "seed", "accuracy": 30.0 + seed},
            {"version": "middo/iter1", "accuracy": 40.0 + seed},
            {"version": "middo/iter2", "accuracy": 38.0},
            {"version": "random/iter1", "accuracy": 33.0 + 2 * seed},
            {"version": "random/iter2", "accuracy": 33.0 + seed},
        ],
        "detection": [
            {
                "version": "middo/iter1",
                "axis": "quality",
                "rows": 100,
                "selected": 10,
                "faults": 7,
                "hits": 5,
                "lift": 3.0 + seed,
                "auroc": 0.7,
            },
            {"version": "middo/iter2", "axis": "quality", "rows": 100, "selected": 5, "lift": 1.0, "auroc": 0.5},
        ],
    }
    for seed in (1, 2, 3)
]


def test_the_best_iteration_is_one_for_all_worlds():
    # middo's iter2 is better in the first world alone, its iter1 in the mean.
    seeds = [seed | {"versions": [dict(line) for line in seed["versions"]]} for seed in SEEDS]
    seeds[0]["versions"][2]["accuracy"] = 45.0
    assert best_iterations(runs_of(seeds)) == {"middo": 1, "random": 1}


def test_of_equally_good_iterations_the_first_is_best():
    versions = [{"version": name, "accuracy": 30.0} for name in ("seed", "middo/iter1", "middo/iter2")]
    assert best_iterations(runs_of([{"seed": 1, "versions": versions}])) == {"middo": 1}


def test_the_table_says_mean_and_spread_over_worlds():
    lines = accuracy_table(runs_of(SEEDS))
    assert "| middo | 32.0 ± 1.0 | **42.0 ± 1.0** | 38.0 ± 0.0 | 10.0 ± 0.0 |  |" in lines
    # 41, 42, 43 against 35, 37, 39.
    assert "| random | 32.0 ± 1.0 | **37.0 ± 2.0** | 35.0 ± 1.0 | 5.0 ± 1.0 | 5.0 ± 1.0 |" in lines
    # Lifts 4, 5, 6; t with two degrees of freedom: 4.303 / sqrt(3) = 2.48.
    shown = "| quality | 3 | 10.0 ± 0.0 % | 5.00 (2.52 to 7.48) | 0.70 (0.70 to 0.70) |"
    assert shown in detection_table(detection_of(SEEDS))


def test_one_world_has_no_spread():
    assert (spread([3.0]), mean_interval([3.0])) == ("3.0", (3.0, 3.0, 3.0))


def test_figures_are_drawn(tmp_path):
    files = []
    for seed in SEEDS:
        files.append(tmp_path / f"{seed['seed']}.json")
        files[-1].write_text(json.dumps(seed))
    outputs = {name: tmp_path / f"{name}.out" for name in ("runs", "detection", "table", "accuracy", "lift")}
    words = [word for name, path in outputs.items() for word in (f"--{name}", path)]
    python = ROOT / ".venvs/figures/bin/python"
    subprocess.run([python, ROOT / "scripts/demo/study.py", "--seeds", *files, *words], check=True)
    for name in ("accuracy", "lift"):
        drawn = outputs[name].read_bytes()
        assert drawn.startswith(b"\x89PNG") and len(drawn) > 10_000
    assert pl.read_csv(outputs["runs"]).height == 3 * 6


def test_a_world_gets_a_config_of_its_own():
    study = load_yaml(FOLDER / "demo-study.yaml")["study"]
    config = experiment_of(study | {"name": "study"}, 7)
    assert (
        "results/demo/" not in yaml.safe_dump(config) and config["dataset"]["path"] == "results/study-7/world/seed.json"
    )
    assert (config["demo"]["seed"], config["teacher"]["model"]) == (7, "little-world-7")
    defaults = load_yaml(FOLDER / "config.yaml")
    for key, value in config.items():
        defaults[key] = defaults.get(key, {}) | value if isinstance(value, dict) else value
    check_config(defaults)


def test_what_a_run_measured_is_collected(tmp_path):
    (tmp_path / "summary.csv").write_text("version,rows,mean\nseed,4,30.00\nmiddo/iter1,5,40.50\n")
    (tmp_path / "middo/iter1").mkdir(parents=True)
    (tmp_path / "middo/iter1/detection.json").write_text(json.dumps({"quality": {"lift": 2.0}}))
    versions, detection = collect(tmp_path)
    assert versions == [{"version": "seed", "accuracy": 30.0}, {"version": "middo/iter1", "accuracy": 40.5}]
    assert detection == [{"version": "middo/iter1", "axis": "quality", "lift": 2.0}]


def test_a_dry_run_plans_a_job_per_world():
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo-study.yaml", "-n"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "study_seed        5" in shown


@pytest.mark.parametrize(
    "change, said",
    [
        ({"base": "config/nowhere.yaml"}, "study.base: there is no config/nowhere.yaml."),
        ({"base": "config/llama-alpaca.yaml"}, "config/llama-alpaca.yaml has no `demo`"),
        ({"seed": [1]}, "study.seed: there is no such key. Did you mean seeds?"),
        ({"seeds": 5}, "study.seeds: 5 is not of the type array."),
        ({"iterations": 0}, "study.iterations: 0 is less than the minimum of 1."),
        ({"strategies": [{"name": "none", "axes": []}]}, "study.strategies: one must be middo"),
        ({"strategies": [{"name": "middo", "axes": ["loss"]}]}, "study.strategies.0.axes.0: 'loss' is not allowed"),
        ({"strategies": [{"name": "middo", "axes": []}] * 2}, "strategies: the name middo stands twice."),
    ],
)
def test_a_config_that_is_no_study_is_refused(tmp_path, change, said):
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump({"study": load_yaml(FOLDER / "demo-study.yaml")["study"] | change}))
    command = [sys.executable, "-m", "snakemake", "--configfile", config, "-n"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    shown = done.stdout + done.stderr
    assert done.returncode and said in shown and "Traceback" not in shown


def test_a_setting_beside_the_study_is_refused_since_no_world_would_get_it():
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo-study.yaml", "-n"]
    done = subprocess.run([*command, "--config", "iterations=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "iterations: a study takes nothing but `study`" in done.stdout + done.stderr


@pytest.mark.parametrize("text, key", [("", "experiment"), ("experiment: a\ndemo:\n", "demo"), ("- a\n", "experiment")])
def test_a_base_that_is_no_demo_is_refused(tmp_path, text, key):
    (tmp_path / "base.yaml").write_text(text)
    study = load_yaml(FOLDER / "demo-study.yaml")["study"] | {"base": str(tmp_path / "base.yaml")}
    with pytest.raises(UserError, match=f"base.yaml has no `{key}`"):
        check_study({"study": study})


def test_a_world_that_is_still_run_is_not_run_twice(tmp_path):
    study = json.dumps(load_yaml(FOLDER / "demo-study.yaml")["study"])
    command = [sys.executable, "scripts/demo/study_seed.py", "--study", study, "--seed", "2", "--cores", "1"]
    with hold(tmp_path / "seed2.lock", "World 2"):
        done = subprocess.run([*command, "--out", tmp_path / "seed2.json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "World 2 is in use by process" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["seed2.lock"]


def test_the_readme_shows_the_tables_of_the_numbers_beside_its_figures():
    runs, detection = (pl.read_csv(MEASURED / f"{name}.csv") for name in ("runs", "detection"))
    shown = (ROOT / "README.md").read_text()
    for line in [*accuracy_table(runs), *detection_table(detection)]:
        assert line in shown
    study = load_yaml(FOLDER / "demo-study.yaml")["study"]
    assert runs["world"].unique().sort().to_list() == sorted(study["seeds"])
    assert set(runs["strategy"]) == {strategy["name"] for strategy in study["strategies"]}
