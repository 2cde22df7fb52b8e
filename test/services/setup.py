"""Sets up the servers and clients that the tests of publishing run against.

    python3 test/services/setup.py [DIRECTORY]      (default: .services at the top of the repository)

Into DIRECTORY/python goes an environment with moto (S3), MLflow and the official clients of hubs,
registries, signatures and S3; into DIRECTORY/registry the CNCF registry, unless one is on PATH.
Needs Python 3.11 or newer, pip's package index and 1.5 GB of disk; the registry comes out of
Debian's package `docker-registry`, which is unpacked, not installed. Running it again is a no-op
while the lock and this script are unchanged.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path.insert(0, str(ROOT / "tools" / "python"))

import environment
from environment import SetupError, exclusive, interpreter, is_done, step

LOCK = FOLDER / "requirements.lock"
INGREDIENTS = (LOCK, FOLDER / "setup.py")
FREE_BYTES_MIN = 2_500_000_000
REGISTRY_PACKAGE = "docker-registry"
CHECK = """
import importlib.metadata, json
import boto3, huggingface_hub, mlflow, model_signing, moto.server, oras.client
names = ("boto3", "huggingface_hub", "mlflow", "model-signing", "moto", "oras")
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Sets up servers and clients for the tests.")
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / ".services")
    directory = parser.parse_args().directory.resolve()
    try:
        environment.require_python()
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(directory):
            ensure_python(directory / "python")
            ensure_registry(directory / "registry")
    except SetupError as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    print(interpreter(directory / "python"))
    return 0


def ensure_python(directory: Path) -> None:
    if is_done(directory, INGREDIENTS):
        return
    environment.require_space(directory.parent, FREE_BYTES_MIN)
    with step("create the environment"):
        environment.create_environment(directory)
    with step("install the packages"):
        environment.install(directory, [LOCK])
    with step("check that everything imports"):
        versions = environment.check(directory, CHECK)
    environment.mark_done(directory, INGREDIENTS, versions)


def ensure_registry(directory: Path) -> None:
    """Leaves the program at DIRECTORY/docker-registry, a link where it is on PATH."""
    program = directory / REGISTRY_PACKAGE
    if program.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    found = shutil.which(REGISTRY_PACKAGE)
    if found is not None:
        program.symlink_to(found)
        return
    with step("unpack the registry"), tempfile.TemporaryDirectory(dir=directory) as temporary:
        unpack_registry(Path(temporary), program)


def unpack_registry(temporary: Path, program: Path) -> None:
    how = (
        f"Put {REGISTRY_PACKAGE} on PATH (the CNCF Distribution registry 2.8; Debian's package"
        f" {REGISTRY_PACKAGE}), and run this again."
    )
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SetupError(f"this machine has no apt-get. {how}")
    download = ["apt-get", "-o", "Acquire::Retries=5", "download", REGISTRY_PACKAGE]
    if subprocess.run(download, cwd=temporary, capture_output=True).returncode != 0:
        # A machine that has no lists of packages yet: the lists go beside the download.
        update = ["apt-get", "-o", "Acquire::Retries=5", "update"]
        subprocess.run(update, cwd=temporary, capture_output=True)
        done = subprocess.run(download, cwd=temporary, capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f"apt-get download failed: {done.stderr.strip()}. {how}")
    [package] = temporary.glob("*.deb")
    unpacked = temporary / "unpacked"
    subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
    (unpacked / "usr" / "bin" / REGISTRY_PACKAGE).rename(program)


if __name__ == "__main__":
    sys.exit(main())
