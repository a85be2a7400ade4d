"""Say which base model it is: the SHA-256 of each of its files, in the form of `sha256sum`.

Made once for an experiment, because the weights of a large model take a minute; the manifest of every version that the
model diagnosed holds these hashes. Of a hub model it is the snapshot that was fetched.

    python scripts/hash_base_model.py --base-model results/demo/world/base_model --out results/demo/base_model.sha256
"""

import argparse
from pathlib import Path

from middo import program
from middo.files import sha256_file, write_text
from middo.hub import check_model, identity_files, model_folder


def arguments() -> argparse.ArgumentParser:
    made = program.parser(__doc__)
    made.add_argument("--base-model", required=True, help="folder in Hugging Face form, or name on the hub")
    made.add_argument("--revision", help="commit of a hub model")
    made.add_argument("--out", type=Path, required=True, help="base_model.sha256 to write")
    return made


def main(args: argparse.Namespace) -> None:
    check_model(args.base_model, args.revision)
    files = identity_files(model_folder(args.base_model, args.revision))
    write_text(args.out, "".join(f"{sha256_file(path)}  {path.name}\n" for path in files))
    program.say(f"{len(files)} files of {args.base_model}")


if __name__ == "__main__":
    program.run(main, arguments(), environment="driver")
