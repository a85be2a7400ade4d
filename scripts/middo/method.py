"""The version of every step's meaning.

Raise a step's number when what it computes changes: results and unfinished work that exist then become invalid, and
what follows from them. Edits of a program that leave its meaning alone leave the number alone, and rerun nothing.
"""

METHOD = {
    "import_seed": 2,
    "finetune": 2,
    "losses": 2,
    "neighbors": 1,
    "scores": 2,
    "select_rows": 1,
    "refine": 2,
    "near_copies": 1,
    "leaks": 1,
    "assemble": 3,
    "evaluate": 1,
    "summary": 1,
    "release": 1,
    "crate": 1,
}
