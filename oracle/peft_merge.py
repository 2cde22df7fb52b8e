"""Merges an adapter into a base the way its users do today, with PEFT, and times it.

    python oracle/peft_merge.py --base DIR --adapter DIR --out FILE_OR_DIR

The merged tensors are written under the names they have in the base's files: as one file when OUT
ends in .safetensors, otherwise as OUT/model.safetensors beside copies of the base's other files.
Standard output is one JSON object: seconds for import, load, merge and save, and the peak
resident memory of the process, in bytes.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"


class Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self.last, 3)
        self.last = now


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Merges with PEFT and times it.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--safe-merge",
        action="store_true",
        help="PEFT's safe_merge=True, which rounds twice; the default is PEFT's own, False",
    )
    parser.add_argument("--threads", type=int, help="of torch; default: torch's choice")
    return parser.parse_args()


def names_on_disk(base: Path) -> list[str]:
    from safetensors import safe_open

    names = []
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names += file.keys()
    if not names:
        sys.exit(f"peft_merge: {base} holds no .safetensors file")
    return names


def select(state: dict, names: list[str]) -> dict:
    """The merged tensors under the base's names; a name that PEFT lost is an error.

    A head that the base ties, and that the merge untied, is added.
    """
    missing = [name for name in names if name not in state]
    if missing:
        sys.exit(f"peft_merge: the loaded model has no {missing[0]} ({len(missing)} missing)")
    selected = {name: state[name].contiguous() for name in names}
    head = state.get("lm_head.weight")
    kept = {tensor.data_ptr() for tensor in selected.values()}
    if "lm_head.weight" not in selected and head is not None and head.data_ptr() not in kept:
        selected["lm_head.weight"] = head.contiguous()
    return selected


def write(tensors: dict, base: Path, out: Path) -> None:
    from safetensors.torch import save_file

    path = out
    if out.suffix != ".safetensors":
        out.mkdir(parents=True, exist_ok=True)
        path = out / "model.safetensors"
        for source in base.iterdir():
            if source.is_file() and ".safetensors" not in source.name:
                shutil.copyfile(source, out / source.name)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves its temporary file's 0600
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def main() -> None:
    arguments = parse_arguments()
    watch = Stopwatch()
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    # The class behind the automatic one is imported when it is looked up.
    config = AutoConfig.from_pretrained(arguments.base)
    AutoModelForCausalLM._model_mapping.get(type(config), None)
    watch.lap("import")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = names_on_disk(arguments.base)
    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype="auto")
    model = PeftModel.from_pretrained(model, arguments.adapter)
    watch.lap("load")
    model = model.merge_and_unload(safe_merge=arguments.safe_merge)
    watch.lap("merge")
    write(select(model.state_dict(), names), arguments.base, arguments.out)
    watch.lap("save")
    # Kibibytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": watch.seconds, "peak_rss_bytes": peak, "tensors": len(names)}))


if __name__ == "__main__":
    main()
