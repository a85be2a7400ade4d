"""The version of every step's meaning.

Raise a step's number when what it computes changes: results and unfinished work that exist then become invalid, and
what follows from them. Edits of a program that leave its meaning alone leave the number alone, and rerun nothing.
"""

METHOD = {
    "import_seed": 2,
    "finetune": 1,
    "losses": 1,
    "neighbors": 1,
    "scores": 1,
    "select_rows": 1,
    "refine": 2,
    "assemble": 2,
    "evaluate": 1,
    "summary": 1,
}
