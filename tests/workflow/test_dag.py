"""What runs again for which change, by dry runs on a copy of the finished demo."""

import json
import os
import re

import psutil
import pytest
import yaml
from conftest import snakemake

from middo.benchmarks import BENCHMARKS, data_files

CONFIG = "config/demo.yaml"


def planned(folder, *arguments):
    """{rule: number of jobs} that a dry run announces."""
    shown = snakemake(folder, "--configfile", CONFIG, "-n", *arguments).stdout
    if "Nothing to be done" in shown:
        return {}
    table = shown.split("Job stats:")[1].split("\n\n")[0]
    counts = dict(re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in counts.items() if rule not in ("total", "all")}


def edit_config(folder, path, value):
    config = yaml.safe_load((folder / CONFIG).read_text())
    *parents, last = path.split(".")
    section = config
    for part in parents:
        section = section.setdefault(part, {})
    section[last] = value
    (folder / CONFIG).write_text(yaml.safe_dump(config))


def test_nothing_to_do_and_quickly(demo):
    before = psutil.Process().cpu_times()
    shown = snakemake(demo, "--configfile", CONFIG, "--cores", "2").stdout
    assert "Nothing to be done" in shown
    after = psutil.Process().cpu_times()
    # Seconds of work, not of waiting: other programs may be busy too.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 10


@pytest.mark.parametrize("axis", ["complexity", "diversity", "quality"])
def test_m_of_an_axis_invalidates_selections_and_what_follows(demo_copy, axis):
    edit_config(demo_copy, f"{axis}.m", 0.25 if axis == "complexity" else -0.25)
    plan = planned(demo_copy)
    assert plan["select_rows"] == plan["refine"] == plan["assemble"] == plan["finetune"] == plan["evaluate"] == 3
    assert plan["losses"] == plan["scores"] == plan["neighbors"] == 2
    assert not {"import_seed", "demo_world", "demo_base_model"} & plan.keys()


def test_an_m_that_is_also_the_value_of_another_setting_is_seen(demo_copy):
    # Snakemake compares the values of a rule's params without their names; 1 is the method's version too.
    edit_config(demo_copy, "complexity.m", 1)
    assert planned(demo_copy)["select_rows"] == 3


def test_a_prompt_of_the_teacher_invalidates_refining_and_what_follows(demo_copy):
    prompt = demo_copy / "config/prompts/simplify.md"
    prompt.write_text(prompt.read_text() + "\nBe brief.\n")
    plan = planned(demo_copy)
    assert plan["refine"] == plan["assemble"] == plan["finetune"] == 3
    # The first selection does not depend on the teacher's prompts.
    assert plan["select_rows"] == 2 and plan["scores"] == 2 and "import_seed" not in plan


def test_a_rating_prompt_invalidates_scores_and_what_follows(demo_copy):
    # The demo's base model learns from these prompts; one that is there already does not change.
    config = yaml.safe_load((demo_copy / CONFIG).read_text())
    del config["demo"]
    (demo_copy / CONFIG).write_text(yaml.safe_dump(config))
    assert planned(demo_copy) == {}
    prompt = demo_copy / "config/prompts/clarity_response.md"
    prompt.write_text(prompt.read_text() + "Be strict.\n")
    plan = planned(demo_copy)
    assert plan["scores"] == plan["select_rows"] == plan["refine"] == plan["finetune"] == 3
    assert plan["losses"] == plan["neighbors"] == 2


def test_a_training_option_retrains_every_version(demo_copy):
    edit_config(demo_copy, "training.learning_rate", 5.0e-4)
    plan = planned(demo_copy)
    assert plan["finetune"] == plan["evaluate"] == 4 and plan["losses"] == 3
    assert not {"import_seed", "demo_base_model"} & plan.keys()
    assert plan.get("base_losses", 0) == 2, "the seed's base losses don't depend on training"


def test_one_more_iteration_adds_only_that(demo_copy):
    edit_config(demo_copy, "iterations", 4)
    plan = planned(demo_copy)
    assert plan == dict.fromkeys(
        [
            "select_rows",
            "refine",
            "assemble",
            "near_copies",
            "leaks",
            "finetune",
            "evaluate",
            "base_losses_shard",
            "base_losses",
            "losses_shard",
            "losses",
            "neighbors",
            "scores_shard",
            "scores",
            "demo_detection",
            "summary",
        ],
        1,
    )


def test_controls_share_the_seed_version_and_need_no_signals(demo_copy):
    axes = ["complexity", "diversity", "quality"]
    strategies = [{"name": "middo", "axes": axes}, {"name": "random", "axes": axes, "like": "middo"}]
    edit_config(demo_copy, "strategies", [*strategies, {"name": "none", "axes": []}])
    edit_config(demo_copy, "iterations", 1)
    made = ["select_rows", "refine", "assemble", "near_copies", "leaks", "demo_detection", "finetune", "evaluate"]
    assert planned(demo_copy) == dict.fromkeys(made, 2) | {"summary": 1}


def test_one_iteration_less_only_writes_the_summary(demo_copy):
    edit_config(demo_copy, "iterations", 2)
    assert planned(demo_copy) == {"summary": 1}


def older(path, to):
    """Rename `path`; its time stays."""
    path.rename(to)
    for file in [to, *to.rglob("*")]:
        os.utime(file, (0, 0))


@pytest.mark.parametrize(("prompt", "again"), [("clarity_response", "scores"), ("extend", "refine")])
def test_other_prompts_are_seen_however_old_they_are(demo_copy, prompt, again):
    config = yaml.safe_load((demo_copy / CONFIG).read_text())
    del config["demo"]
    (demo_copy / CONFIG).write_text(yaml.safe_dump(config))
    older(demo_copy / "config/prompts", demo_copy / "mine")
    edit_config(demo_copy, "prompts", "mine")
    assert planned(demo_copy) == {}, "the same texts in another folder"
    (demo_copy / f"mine/{prompt}.md").write_text((demo_copy / f"mine/{prompt}.md").read_text() + "Be strict.\n")
    older(demo_copy / "mine", demo_copy / "yours")
    edit_config(demo_copy, "prompts", "yours")
    # Nothing is known of shards that there were never so many of; the change must be seen all the same.
    for shards in (1, 3):
        edit_config(demo_copy, "execution.shards", shards)
        plan = planned(demo_copy)
        assert plan[again] == plan["refine"] == 3 and plan["scores_shard"] == plan["scores"] * shards


def test_another_seed_dataset_is_imported_however_old_it_is(demo_copy):
    config = yaml.safe_load((demo_copy / CONFIG).read_text())
    del config["demo"]
    (demo_copy / CONFIG).write_text(yaml.safe_dump(config))
    older(demo_copy / "results/demo/world/seed.json", demo_copy / "mine.json")
    edit_config(demo_copy, "dataset.path", "mine.json")
    assert planned(demo_copy)["import_seed"] == 1


def test_another_training_measures_again_with_another_number_of_shards(demo_copy):
    edit_config(demo_copy, "execution.shards", 5)
    edit_config(demo_copy, "training.cutoff_len", 300)
    plan = planned(demo_copy)
    assert plan["finetune"] == 4 and plan["losses_shard"] == plan["base_losses_shard"] == 15


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("execution.shards", 2),
        ("execution.shards", 7),
        ("execution.token_budget", 512),
        ("execution.max_num_seqs", 7),
        ("teacher.max_concurrency", 3),
        ("teacher.timeout", 9),
        ("teacher.api_key_env", "SOME_KEY"),
        ("teacher.prices", {"input": 1.5, "output": 6}),
        ("teacher.max_requests", 1),
    ],
)
def test_how_it_runs_reruns_nothing(demo_copy, path, value):
    edit_config(demo_copy, path, value)
    assert planned(demo_copy) == {}


def test_threads_rerun_nothing(demo):
    assert planned(demo, "--cores", "1", "--set-threads", "finetune=1", "losses_shard=2") == {}


def test_a_comment_in_a_script_reruns_nothing(demo_copy):
    for name in ("finetune.py", "refine.py", "middo/rows.py", "middo/teacher.py"):
        script = demo_copy / "scripts" / name
        script.write_text(script.read_text() + "\n# A comment.\n")
    assert planned(demo_copy) == {}


def test_touching_or_rewriting_the_same_bytes_reruns_nothing(demo_copy):
    results = demo_copy / "results/demo"
    for path in (
        results / "world/seed.json",
        results / "world/base_model/model.safetensors",
        results / "seed/dataset.jsonl",
        results / "seed/losses.parquet",
        results / "middo/iter1/selection.parquet",
        results / "middo/iter2/dataset.jsonl",
        results / "seed/checkpoint/model.safetensors",
        demo_copy / "config/prompts/simplify.md",
    ):
        path.write_bytes(path.read_bytes())
        os.utime(path)
    os.utime(results / "seed/checkpoint")
    assert planned(demo_copy) == {}


def test_a_changed_dataset_invalidates_what_was_made_from_it(demo_copy):
    dataset = demo_copy / "results/demo/middo/iter2/dataset.jsonl"
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    dataset.write_text("\n".join(json.dumps(row) for row in rows[:-1]) + "\n")
    plan = planned(demo_copy)
    assert plan["finetune"] == plan["evaluate"] == 2, "iter2 and iter3"


def test_what_evaluation_asks_reaches_no_dataset_unless_leaks_are_dropped(demo_copy):
    questions = demo_copy / "results/demo/world/heldout.jsonl"
    questions.write_text("\n".join(questions.read_text().splitlines()[1:]) + "\n")
    assert planned(demo_copy) == {"evaluate": 4, "leaks": 3, "summary": 1}
    edit_config(demo_copy, "new_rows.on_leak", "drop")
    plan = planned(demo_copy)
    assert plan["leaks"] == plan["assemble"] == 3 and plan["finetune"] >= 3 and "refine" in plan


def test_a_new_seed_dataset_runs_all_but_the_base_model(demo_copy):
    seed = demo_copy / "results/demo/world/seed.json"
    rows = json.loads(seed.read_text())
    seed.write_text(json.dumps(rows[1:]))
    plan = planned(demo_copy)
    assert plan["import_seed"] == 1 and plan["finetune"] == 4 and "demo_base_model" not in plan


def test_an_ablation_shares_the_seed(demo_copy):
    axes = ["complexity", "diversity", "quality"]
    both = [{"name": "middo", "axes": axes}, {"name": "no-scores", "axes": axes[:2]}]
    edit_config(demo_copy, "strategies", both)
    plan = planned(demo_copy)
    assert plan["finetune"] == 3 and "scores" not in plan and plan["losses"] == 2


def test_an_experiment_of_the_paper_can_be_planned(checkout):
    """From an own dataset and benchmarks' data to the summary; the base model's name is only looked up when it runs."""
    for file in data_files(BENCHMARKS, "data/benchmarks"):
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).touch()
    (checkout / "data/alpaca.json").write_text("[]")
    shown = snakemake(checkout, "--configfile", "config/llama-alpaca.yaml", "-n").stdout
    assert re.search(r"^finetune +4$", shown, flags=re.MULTILINE)


def test_a_wrong_key_stops_before_any_job(checkout):
    done = snakemake(checkout, "--configfile", CONFIG, "--config", "complexty=1", check=False)
    assert done.returncode != 0 and "complexty: there is no such key. Did you mean complexity?" in done.stdout
    assert not (checkout / "results").exists()


def test_a_missing_seed_file_is_named(checkout):
    done = snakemake(checkout, "--configfile", "config/llama-alpaca.yaml", "-n", check=False)
    assert done.returncode != 0 and "data/alpaca.json" in done.stdout
