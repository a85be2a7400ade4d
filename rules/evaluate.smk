# How good a version's model is, measured by OpenCompass.


rule evaluate:
    input:
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
        custom=[custom["path"] for custom in config["evaluation"]["custom"]],
    output:
        eval="<results>/{version}/eval.json",
        details=directory("<results>/{version}/eval"),
    log:
        "<results>/{version}/logs/evaluate.log",
    params:
        method=METHOD["evaluate"],
        evaluation=lambda wildcards: pick(config["evaluation"]),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        env_file("evaluate")
    shell:
        "{python[evaluate]} scripts/evaluate.py --checkpoint {input.checkpoint} --evaluation {params.evaluation:q}"
        " --out {output.eval} --details {output.details} --device {device} --server-python {python[score]} --log {log}"
