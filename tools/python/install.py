"""A program: makes the environment in which weldline converts and evaluates.

    python install.py DIRECTORY CHECK LOCK [CUDA_LOCK]

CHECK is the program that tells whether what was installed works (check_tools.py), LOCK what it is.
With a second lock, that of NVIDIA's libraries, it can use a GPU; without, small stand-ins take their
place. A line of standard output for every step; what fails is said on standard error, with exit
code 1. Nothing is done where the environment is finished, and nothing of one that is not is kept.
"""

import sys
from pathlib import Path

import environment
from environment import SetupError

# Unpacked, with pip's downloads beside it; NVIDIA's libraries come on top.
SPACE_BYTES = 3_000_000_000
CUDA_SPACE_BYTES = 9_000_000_000


def main() -> int:
    directory, check, *locks = (Path(argument).absolute() for argument in sys.argv[1:])
    ingredients = [*locks, *environment.STAND_INS]
    try:
        environment.require_python()
        with environment.exclusive(directory):
            # Another process may have finished while this one waited.
            if not environment.is_done(directory, ingredients):
                build(directory, locks)
                versions = environment.check(directory, check.read_text())
                environment.mark_done(directory, ingredients, versions)
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(directory: Path, locks: list[Path]) -> None:
    is_for_gpu = len(locks) > 1
    environment.require_space(directory.parent, CUDA_SPACE_BYTES if is_for_gpu else SPACE_BYTES)
    print("Making an environment for Python", flush=True)
    environment.create_environment(directory)
    environment.install(directory, locks, "--only-binary=:all:")
    if not is_for_gpu:
        environment.write_cuda_stubs(directory)
    print("trying what was installed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
