"""Sets up the oracle: an isolated Python environment holding torch, transformers and PEFT.

    python3 oracle/setup.py [DIRECTORY]        (default: .oracle at the top of the repository)

The oracle is what weldline's results are compared with; the product itself never runs it.
Needs Python 3.11 or newer and pip's package index, about 2 GB of disk, and no compiler. Running
it again is a no-op while the lock file and these scripts are unchanged; a run that was
interrupted is started over. On success the last line printed is the environment's interpreter.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LOCK = FOLDER / "requirements.lock"
# Everything that decides what the environment holds.
INGREDIENTS = ("requirements.lock", "setup.py", "cuda_stubs.py", "elf_stub.py", "elf_symbols.py")
MARKER = "weldline-oracle.json"
# The installed environment is 1.7 GB; pip keeps the downloads beside it while it unpacks.
FREE_BYTES_MIN = 3_000_000_000
OLDEST_PYTHON = (3, 11)
PROGRESS_INTERVAL_SECONDS = 5
CHECK = """
import json, numpy, safetensors, tokenizers, torch, transformers, peft, sentencepiece, gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8.0
modules = (torch, transformers, peft, safetensors, tokenizers, numpy)
print(json.dumps({module.__name__: module.__version__ for module in modules}))
"""


class SetupError(Exception):
    """Says what failed and what to do about it."""


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
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f"Python {sys.version.split()[0]} is too old: run this with 3.11+")
    if not is_done(directory):
        with exclusive(directory):
            # Another process may have finished while this one waited.
            if not is_done(directory):
                build(directory)


def interpreter(directory: Path) -> Path:
    windows = directory / "Scripts" / "python.exe"
    return windows if os.name == "nt" else directory / "bin" / "python"


def ingredients_digest(names: tuple[str, ...] = INGREDIENTS) -> str:
    digest = hashlib.sha256(f"python {sys.version_info[0]}.{sys.version_info[1]}\n".encode())
    for name in names:
        digest.update(hashlib.sha256((FOLDER / name).read_bytes()).digest())
    return digest.hexdigest()


def is_done(directory: Path, names: tuple[str, ...] = INGREDIENTS) -> bool:
    try:
        marker = json.loads((directory / MARKER).read_text())
    except (OSError, ValueError):
        return False
    is_current = marker.get("ingredients") == ingredients_digest(names)
    return is_current and interpreter(directory).exists()


@contextlib.contextmanager
def exclusive(directory: Path):
    """Two test processes may both want the oracle: the second waits for the first."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(directory.parent / f"{directory.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(title: str):
    started = time.monotonic()
    print(f"oracle: {title} ...", flush=True)
    yield
    print(f"oracle: {title}: {time.monotonic() - started:.1f} s", flush=True)


def build(directory: Path) -> None:
    free_bytes = shutil.disk_usage(directory.parent).free
    if free_bytes < FREE_BYTES_MIN:
        raise SetupError(
            f"{free_bytes / 1e9:.1f} GB free at {directory.parent}, {FREE_BYTES_MIN / 1e9:.0f} GB"
            " needed: free some space or name another directory"
        )
    remove_old(directory)
    with step("create the environment"):
        create_environment(directory)
    with step("install the packages (downloads about 0.9 GB)"):
        install(directory, LOCK)
    with step("write stand-ins for CUDA libraries"):
        write_cuda_stubs(directory)
    with step("check that everything imports"):
        versions = check(directory, CHECK, LOCK)
    mark_done(directory, versions)


def mark_done(directory: Path, versions: dict, names: tuple[str, ...] = INGREDIENTS) -> None:
    marker = {"ingredients": ingredients_digest(names), "versions": versions}
    (directory / MARKER).write_text(json.dumps(marker, indent=2) + "\n")


def remove_old(directory: Path) -> None:
    if not directory.exists():
        return
    if any(directory.iterdir()) and not (directory / "pyvenv.cfg").exists():
        raise SetupError(f"{directory} is not a Python environment: name another directory")
    shutil.rmtree(directory)


def create_environment(directory: Path) -> None:
    done = run([sys.executable, "-m", "venv", str(directory)])
    if done.returncode != 0:
        raise SetupError(
            f"python -m venv failed:\n{tail(done.stdout)}\n"
            "On Debian and Ubuntu the module is a package of its own: apt install python3-venv"
        )
    # The directory lies inside a checkout by default and must never be committed.
    (directory / ".gitignore").write_text("*\n")


def install(directory: Path, lock: Path) -> None:
    # --no-deps: the lock is the whole closure, and leaves torch's GPU packages out on purpose.
    command = [str(interpreter(directory)), "-m", "pip", "install", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--no-input", "-r", str(lock)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        last_shown = time.monotonic()
        for line in process.stdout:
            log.write(line)
            is_progress = line.startswith(("Collecting", "Installing"))
            if is_progress and time.monotonic() - last_shown > PROGRESS_INTERVAL_SECONDS:
                print(f"oracle:   {line.partition(' (from')[0].strip()[:80]}", flush=True)
                last_shown = time.monotonic()
        if process.wait() == 0:
            return
        log.seek(0)
        raise SetupError(
            f"pip install failed:\n{tail(log.read())}\n"
            "Check that pip reaches its package index (`pip config list`, HTTPS_PROXY) and that"
            f" this Python ({sys.version.split()[0]}) is one the pinned versions support;"
            " then run this again"
        )


def write_cuda_stubs(directory: Path) -> None:
    from cuda_stubs import write_stubs

    site_packages = next(directory.glob("lib/python3*/site-packages"), None)
    if site_packages is None:  # Windows, whose wheels of torch need no CUDA library
        return
    try:
        written = write_stubs(site_packages)
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot stand in for CUDA libraries: {error}") from error
    print(f"oracle:   {len(written)} written")


def check(directory: Path, program: str, lock: Path) -> dict:
    """Runs a program that imports what is needed and prints versions as JSON on its last line."""
    done = run([str(interpreter(directory)), "-c", program])
    if done.returncode != 0:
        raise SetupError(
            f"the installed packages do not import:\n{tail(done.stdout)}\n"
            f"Delete {directory} and run this again; if it stays so, the versions pinned in"
            f" {lock.name} do not fit this machine"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
