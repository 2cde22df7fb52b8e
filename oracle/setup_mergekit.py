"""Sets up mergekit, which the benchmark runs beside weldline, on top of the oracle.

    python3 oracle/setup_mergekit.py           (makes .oracle-mergekit, and .oracle if need be)

An environment of its own that holds mergekit and what only mergekit needs; torch, transformers
and PEFT are those of the oracle, so that the benchmark compares programs and not versions. Needs
about 0.4 GB beside the oracle. Running it again is a no-op while nothing has changed.
"""

import sys
from pathlib import Path

import setup as oracle

import environment
from environment import SetupError, exclusive, interpreter, is_done, step

LOCK = oracle.FOLDER / "mergekit.lock"
INGREDIENTS = (LOCK, oracle.FOLDER / "setup_mergekit.py", *oracle.INGREDIENTS)
DIRECTORY = oracle.FOLDER.parent / ".oracle-mergekit"
ORACLE = oracle.FOLDER.parent / ".oracle"
CHECK = """
import importlib.metadata, json
import mergekit.merge
print(json.dumps({name: importlib.metadata.version(name) for name in ("mergekit", "torch", "peft")}))
"""


def main() -> int:
    try:
        oracle.ensure(ORACLE)
        with exclusive(DIRECTORY):
            if not is_done(DIRECTORY, INGREDIENTS):
                build()
    except SetupError as error:
        print(f"mergekit: {error}", file=sys.stderr)
        return 1
    print(interpreter(DIRECTORY))
    return 0


def build() -> None:
    with step("create the environment of mergekit"):
        environment.create_environment(DIRECTORY)
        share_packages(ORACLE, DIRECTORY)
    with step("install mergekit (downloads about 0.1 GB)"):
        environment.install(DIRECTORY, [LOCK])
    with step("check that mergekit imports"):
        versions = environment.check(DIRECTORY, CHECK)
    environment.mark_done(DIRECTORY, INGREDIENTS, versions)


def share_packages(source: Path, target: Path) -> None:
    """Lets `target` import what `source` holds, behind its own packages."""
    (target_packages,) = target.glob("[Ll]ib/**/site-packages")
    (source_packages,) = source.glob("[Ll]ib/**/site-packages")
    (target_packages / "oracle.pth").write_text(f"{source_packages}\n")


if __name__ == "__main__":
    sys.exit(main())
