# How good a version's model is, measured by OpenCompass.


rule evaluate:
    input:
        checkpoint=ancient("<results>/{version}/checkpoint"),
        sha256="<results>/{version}/checkpoint.sha256",
        benchmarks=data_files(config["evaluation"]["benchmarks"], config["evaluation"]["data"]),
        custom=[custom["path"] for custom in config["evaluation"]["custom"]],
    output:
        eval="<results>/{version}/eval.json",
        details=directory("<results>/{version}/eval"),
    log:
        "<results>/{version}/logs/evaluate.log",
    conda:
        env_file("evaluate")
    threads: 1
    resources:
        python=python["evaluate"],
        allow_unisolated_code=json.dumps(config["execution"]["allow_unisolated_code"]),
        device=DEVICE,
        server_python=server_python,
        max_num_seqs=config["execution"]["max_num_seqs"],
        gpu=one_gpu,
    params:
        method=METHOD["evaluate"],
        evaluation=lambda wildcards: pick(config["evaluation"]),
    shell:
        "{resources.python:q} scripts/evaluate.py --checkpoint {input.checkpoint} --sha256 {input.sha256}"
        " --evaluation {params.evaluation:q} --out {output.eval} --details {output.details}"
        " --device {resources.device} --server-python {resources.server_python:q}"
        " --max-num-seqs {resources.max_num_seqs} --allow-unisolated-code {resources.allow_unisolated_code} --log {log}"
