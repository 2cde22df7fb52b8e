"""Sets up the oracle: an isolated Python environment holding torch, transformers and PEFT.

    python3 oracle/setup.py [DIRECTORY]        (default: .oracle at the top of the repository)

The oracle is what weldline's results are compared with; the product itself never runs it.
Needs Python 3.11 or newer and pip's package index, about 2 GB of disk, and no compiler. Running
it again is a no-op while the lock file and these scripts are unchanged; a run that was
interrupted is started over. On success the last line printed is the environment's interpreter.
"""

import argparse
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "tools" / "python"))

import environment
from environment import SetupError, exclusive, interpreter, is_done, step

LOCK = FOLDER / "requirements.lock"
# Everything that decides what the environment holds.
INGREDIENTS = (LOCK, FOLDER / "setup.py", *environment.STAND_INS)
# The installed environment is 1.7 GB; pip keeps the downloads beside it while it unpacks.
FREE_BYTES_MIN = 3_000_000_000
CHECK = """
import json, numpy, safetensors, tokenizers, torch, transformers, peft, sentencepiece, gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8.0
modules = (torch, transformers, peft, safetensors, tokenizers, numpy)
print(json.dumps({module.__name__: module.__version__ for module in modules}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Sets up the oracle's Python environment.")
    parser.add_argument("directory", nargs="?", type=Path, default=FOLDER.parent / ".oracle")
    directory = parser.parse_args().directory.resolve()
    try:
        ensure(directory)
    except SetupError as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 1
    print(interpreter(directory))
    return 0


def ensure(directory: Path) -> None:
    """Sets the oracle up in `directory` if it is not there yet; raises SetupError."""
    environment.require_python()
    if not is_done(directory, INGREDIENTS):
        with exclusive(directory):
            # Another process may have finished while this one waited.
            if not is_done(directory, INGREDIENTS):
                build(directory)


def build(directory: Path) -> None:
    environment.require_space(directory.parent, FREE_BYTES_MIN)
    with step("create the environment"):
        environment.create_environment(directory)
    with step("install the packages (downloads about 0.9 GB)"):
        environment.install(directory, [LOCK])
    with step("write stand-ins for CUDA libraries"):
        environment.write_cuda_stubs(directory)
    with step("check that everything imports"):
        versions = environment.check(directory, CHECK)
    environment.mark_done(directory, INGREDIENTS, versions)


if __name__ == "__main__":
    sys.exit(main())
