"""Makes a Python environment that holds exactly what a lock file says, and says how far it is.

What weldline runs to convert and evaluate is made with it (install.py), and so is the oracle that
its tests compare with. An environment is finished when its marker is there, which is written last,
after all that was installed has been imported. It cannot be renamed into its place, because its
scripts name it; one without a marker is removed and made again.

Standard library only, for Python 3.11 and newer.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# What stands in for CUDA libraries, which decides as much as a lock does what works.
STAND_INS = tuple(FOLDER / name for name in ("cuda_stubs.py", "elf_stub.py", "elf_symbols.py"))
OLDEST_PYTHON = (3, 11)
MARKER = "weldline-environment.json"
# Downloads that take long enough to be announced.
LARGE_DOWNLOAD = re.compile(r"\((\d{2,}\.\d MB|[\d.]+ GB)\)")
# From an index, or a wheel of a directory that the user has pip look into.
PACKAGE = re.compile(r"(?:Collecting |Processing (?:\S*/)?)([\w.]+(?:-[\w.]+)*?)(?:==|-)(\d[^-\s]*)")
BAR_LENGTH = 20
LAST_LINES = 15


class SetupError(Exception):
    """Says what failed and what to do about it."""


def require_python() -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f"Python {sys.version.split()[0]} is too old: use 3.11 or newer")


def interpreter(directory: Path) -> Path:
    windows = directory / "Scripts" / "python.exe"
    return windows if os.name == "nt" else directory / "bin" / "python"


def digest_of(ingredients: Sequence[Path]) -> str:
    """Of everything that decides what an environment holds, this Python's version included."""
    digest = hashlib.sha256(f"python {sys.version_info[0]}.{sys.version_info[1]}\n".encode())
    for path in ingredients:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_done(directory: Path, ingredients: Sequence[Path]) -> bool:
    try:
        marker = json.loads((directory / MARKER).read_text())
    except (OSError, ValueError):
        return False
    is_current = marker.get("ingredients") == digest_of(ingredients)
    return is_current and interpreter(directory).exists()


def mark_done(directory: Path, ingredients: Sequence[Path], versions: dict[str, str]) -> None:
    marker = {"ingredients": digest_of(ingredients), "versions": versions}
    temporary = directory / f"{MARKER}.partial"
    temporary.write_text(json.dumps(marker, indent=2) + "\n")
    temporary.rename(directory / MARKER)


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Of two processes that make the same environment the second waits for the first.

    The lock ends with the process that holds it, however that ends.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(directory.parent / f"{directory.name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that makes {directory}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    started = time.monotonic()
    print(f"{title} ...", flush=True)
    yield
    print(f"{title}: {time.monotonic() - started:.1f} s", flush=True)


def require_space(directory: Path, free_bytes_min: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < free_bytes_min:
        raise SetupError(
            f"No space left on device: {free_bytes / 1e9:.1f} GB free at {directory},"
            f" {free_bytes_min / 1e9:.1f} GB needed"
        )


def create_environment(directory: Path) -> None:
    """Makes an empty one, in place of what is there if that is an environment."""
    if directory.exists():
        if any(directory.iterdir()) and not (directory / "pyvenv.cfg").exists():
            raise SetupError(f"{directory} is not a Python environment: name another directory")
        # First, so that what is removed by half is not taken for finished.
        (directory / MARKER).unlink(missing_ok=True)
        shutil.rmtree(directory)
    done = run([sys.executable, "-I", "-m", "venv", str(directory)])
    if done.returncode != 0:
        raise SetupError(
            f"python -m venv failed:\n{tail(done.stdout)}\n"
            "On Debian and Ubuntu the module is a package of its own: apt install python3-venv"
        )
    # A directory inside a checkout must never be committed.
    (directory / ".gitignore").write_text("*\n")


def install(directory: Path, locks: Sequence[Path], *flags: str) -> None:
    """Installs all packages of the locks with pip, which checks their hashes.

    What pip had downloaded before it was interrupted is in its cache.
    """
    # --no-deps: the locks are the whole closure, and leave torch's GPU packages out on purpose.
    command = [str(interpreter(directory)), "-I", "-m", "pip", "install", "--no-deps"]
    command += ["--no-compile", "--require-hashes", "--no-input", *flags]
    command += ["--disable-pip-version-check", "--progress-bar=off"]
    for lock in locks:
        command += ["--requirement", str(lock)]
    # On the disk that needs the space anyway, and gone with the environment after a crash.
    scratch = directory / "tmp"
    scratch.mkdir()
    elsewhere = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIREMENT")
    variables = {name: value for name, value in os.environ.items() if name not in elsewhere}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=scratch,
        env={**variables, "TMPDIR": str(scratch)},
    )
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    progress = InstallProgress(sum(count_packages(lock) for lock in locks))
    for line in process.stdout:
        last_lines.append(line)
        progress.show(line)
    if process.wait() != 0:
        raise SetupError(
            f"pip install failed:\n{''.join(last_lines).rstrip()}\n"
            "Check that pip reaches its package index (`pip config list`, HTTPS_PROXY) and that"
            f" this Python ({sys.version.split()[0]}) is one the pinned versions support;"
            " then run this again"
        )
    shutil.rmtree(scratch)


class InstallProgress:
    """A line for every package, with a bar; pip's own bar needs a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = 0
        self.package = ""

    def show(self, line: str) -> None:
        if package := PACKAGE.match(line):
            self.count += 1
            self.package = " ".join(package.group(1, 2))
            self.say(self.package)
        elif size := LARGE_DOWNLOAD.search(line):
            self.say(f"{self.package}, {size.group(1)}")
        elif line.startswith("Installing collected packages"):
            self.count = self.total
            self.say("unpacking")

    def say(self, text: str) -> None:
        done = min(BAR_LENGTH, BAR_LENGTH * self.count // max(self.total, 1))
        print(f"[{'#' * done:-<{BAR_LENGTH}}] {self.count}/{self.total} {text}", flush=True)


def count_packages(lock: Path) -> int:
    """Those for this platform: a marker for another one is the only kind that excludes many."""
    lines = lock.read_text().splitlines()
    return sum("==" in line and line[:1].isalnum() and is_for_us(line) for line in lines)


def is_for_us(line: str) -> bool:
    platform = re.search(r"sys_platform == '(\w+)'", line)
    version = re.search(r"python_full_version (<|>=) '(\d+)\.(\d+)'", line)
    if version is not None:
        limit = (int(version.group(2)), int(version.group(3)))
        if (sys.version_info[:2] < limit) != (version.group(1) == "<"):
            return False
    return platform is None or platform.group(1) == sys.platform


def write_cuda_stubs(directory: Path) -> None:
    """Lets torch's CUDA build load where there is no CUDA: see cuda_stubs.py."""
    from cuda_stubs import write_stubs

    site_packages = next(directory.glob("lib/python3*/site-packages"), None)
    if site_packages is None:  # Windows, whose wheels of torch need no CUDA library
        return
    try:
        write_stubs(site_packages)
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot stand in for CUDA libraries: {error}") from error


def check(directory: Path, program: str) -> dict[str, str]:
    """Runs a program that imports what is needed and prints versions as JSON on its last line."""
    done = run([str(interpreter(directory)), "-I", "-c", program])
    if done.returncode != 0:
        raise SetupError(
            f"the installed packages do not import:\n{tail(done.stdout)}\n"
            f"Delete {directory} and run this again; if it stays so, the pinned versions do not"
            " fit this machine"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])
