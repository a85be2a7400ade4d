# Middo, the closed loop of data and model. The rules stand in the order of the loop:
#
#   dataset -> finetune -> evaluate
#      |          |
#      |          +-> losses, embeddings -> neighbors
#      |          +-> scores
#      +------------------> select_rows -> refine -> assemble -> the next version's dataset

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


CONDA = "conda" in str(workflow.deployment_settings.deployment_method).lower()

if "study" in config:

    include: "rules/study.smk"

    rule all:
        default_target: True
        input:
            rules.study.output,

else:

    include: "rules/common.smk"
    include: "rules/demo.smk"
    include: "rules/data.smk"
    include: "rules/train.smk"
    include: "rules/diagnose.smk"
    include: "rules/refine.smk"
    include: "rules/evaluate.smk"
    include: "rules/report.smk"
    include: "rules/describe.smk"

    rule all:
        default_target: True
        input:
            "<results>/summary.csv",
            expand("<results>/{version}/{file}.jsonl", version=VERSIONS[1:], file=["near_copies", "leaks"]),
            expand("<results>/{version}/detection.json", version=VERSIONS[1:]) if "demo" in config else [],
