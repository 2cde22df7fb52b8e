"""Compiles the native kernel: `npm run build:native`. Needs Python 3 and pip's package index.

The compiler is a pinned package, installed into .native/ at the top of the repository, about
0.4 GB. Nothing is done where the result is up to date, nor on platforms that have no native
kernel: those use WebAssembly.
"""

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
WORKSHOP = SOURCES.parent.parent / ".native"
LOCK = SOURCES / "requirements.lock"
OUTPUT = SOURCES / "merge-linux-x64.node"

# Linked against the glibc of 2012, so that what is built on a new system runs on an old one.
TARGET = "-target x86_64-linux-gnu.2.17"
COMMON = f"{TARGET} -std=c11 -O3 -fPIC -fvisibility=hidden -Wall -Wextra -Werror"
# Nothing is fused, contracted or reordered: the bytes are those of the other kernels.
ARITHMETIC = "-mavx2 -mf16c -mno-fma -ffp-contract=off -fno-fast-math"
# The addon asks the processor what it can do, so it must run on any.
UNITS = {"addon.c": "", "merge.c": ARITHMETIC, "pack.c": ARITHMETIC, "scan.c": ARITHMETIC}


class BuildError(Exception):
    """Says what failed and what to do about it."""


def main() -> int:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("native kernel: only for Linux on x86-64; WebAssembly is used here")
        return 0
    try:
        with exclusive():
            if is_current():
                print(f"native kernel: {OUTPUT.name} is up to date")
            else:
                build()
    except BuildError as error:
        print(f"native kernel: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def exclusive():
    """Two builds may be started at once: the second waits for the first."""
    import fcntl

    WORKSHOP.mkdir(exist_ok=True)
    (WORKSHOP / ".gitignore").write_text("*\n")
    with open(WORKSHOP / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(*files: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def ingredients() -> str:
    return digest(*sorted(SOURCES.glob("*.[ch]")), Path(__file__), LOCK)


def is_current() -> bool:
    marker = WORKSHOP / "built-from"
    if not (OUTPUT.exists() and marker.exists()):
        return False
    return marker.read_text() == f"{ingredients()} {digest(OUTPUT)}"


def build() -> None:
    compiler = install_compiler()
    with tempfile.TemporaryDirectory(dir=WORKSHOP) as folder:
        objects = []
        for source, flags in UNITS.items():
            objects.append(f"{folder}/{source}.o")
            arguments = [*COMMON.split(), *flags.split(), "-c", source, "-o", objects[-1]]
            run([*compiler, *arguments], f"{source} does not compile")
        linked = f"{folder}/{OUTPUT.name}"
        arguments = [*COMMON.split(), "-shared", "-s", *objects, "-o", linked]
        run([*compiler, *arguments], "the objects do not link")
        # A new file: processes that have loaded the old one keep it.
        os.replace(linked, OUTPUT)
    (WORKSHOP / "built-from").write_text(f"{ingredients()} {digest(OUTPUT)}")
    print(f"native kernel: {OUTPUT.name}, {OUTPUT.stat().st_size / 1024:.0f} KiB")


def install_compiler() -> list[str]:
    environment = WORKSHOP / "python"
    python = environment / "bin" / "python"
    marker = environment / "installed"
    if not (marker.exists() and marker.read_text() == digest(LOCK)):
        print("native kernel: install the compiler (downloads about 0.1 GB) ...", flush=True)
        run(
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            "python -m venv failed (on Debian and Ubuntu: apt install python3-venv)",
        )
        command = [str(python), "-m", "pip", "install", "--require-hashes", "--no-deps"]
        command += ["--no-compile", "--disable-pip-version-check", "--no-input", "-r", str(LOCK)]
        run(
            command,
            "pip install failed; check that it reaches its package index (`pip config list`,"
            " HTTPS_PROXY), then run this again",
        )
        marker.write_text(digest(LOCK))
    return [str(python), "-m", "ziglang", "cc"]


def run(command: list[str], failure: str) -> None:
    caches = {f"ZIG_{kind}_CACHE_DIR": str(WORKSHOP / "cache") for kind in ("GLOBAL", "LOCAL")}
    done = subprocess.run(
        command,
        cwd=SOURCES,
        env={**os.environ, **caches},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise BuildError(f"{failure}:\n{done.stdout.strip()}")


if __name__ == "__main__":
    sys.exit(main())
