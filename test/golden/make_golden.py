"""Writes the golden merges: bases, adapters, and what PEFT makes of them.

    .oracle/bin/python test/golden/make_golden.py [CASE ...]

For each case and base dtype, cases/<case>-<dtype>/ holds
- base/ and adapter/ as transformers and PEFT save them,
- expected.safetensors: the tensors after `merge_and_unload()`, under the base's names on disk,
- case.json: what the case is for, and what the tests and a reader want to know about it.

PEFT's default, `safe_merge=False`, adds the float32 delta to the weight and rounds once.
`safe_merge=True` rounds the delta first and differs in up to a third of these elements, which is
why case.json names the mode. VERSIONS.json pins what the files were made with: other versions may
change the files' bytes, and then deserve a look before they are committed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import numpy
import peft
import safetensors
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

from golden_cases import CASES, SHORT, Case
from golden_models import (
    ADAPTER_FILE,
    build_adapter,
    build_base,
    load_base,
    load_on_disk,
    read_json,
    start_folder,
)

FOLDER = Path(__file__).resolve().parent
PEFT_CALL = "PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=False)"
# Of the adapter's names and of a case's targets.
PREFIX = "base_model.model."
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def make_case(case: Case, dtype: str, folder: Path) -> dict:
    start_folder(folder)
    build_base(case, dtype, folder / "base")
    build_adapter(case, dtype, folder / "base", folder / "adapter")
    before = load_on_disk(folder / "base")
    model = PeftModel.from_pretrained(load_base(folder / "base", dtype), folder / "adapter")
    targets = find_targets(model)
    deltas = {HEAD: delta_of(model, "lm_head")} if case.untie_head else {}
    merged = model.merge_and_unload(safe_merge=False).state_dict()
    expected, replaced = choose_expected(case, before, merged, targets)
    if case.untie_head:
        # The same addition as PEFT's: in place, so that torch rounds the float32 sum once.
        expected[HEAD] = before[EMBEDDING].clone()
        expected[HEAD] += deltas[HEAD]
        expected[EMBEDDING] = before[EMBEDDING]
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    (folder / "expected.safetensors").chmod(0o644)
    report = describe(case, dtype, targets, replaced, expected, before)
    report |= measure(folder, targets, before, expected)
    (folder / "case.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def find_targets(model) -> dict[str, dict]:
    """Name of each targeted weight to its own rank and scaling, as PEFT resolved them."""
    return {
        name.removeprefix(PREFIX) + ".weight": {
            "rank": module.r["default"],
            "scaling": module.scaling["default"],
            "transposed": bool(module.fan_in_fan_out),
        }
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


def delta_of(model, module_name: str) -> torch.Tensor:
    with torch.no_grad():
        return model.get_submodule(PREFIX + module_name).get_delta_weight("default").clone()


def choose_expected(case: Case, before: dict, merged: dict, targets: dict):
    """The tensors on disk after the merge, and the names of those replaced as a whole.

    What PEFT did not touch is taken from the base's files, not from the loaded model, which has
    one dtype throughout. Raises AssertionError when the model changed anything else.
    """
    expected, replaced = {}, []
    for name, tensor in before.items():
        after = merged[name]
        if name in targets:
            assert after.dtype == tensor.dtype and not torch.equal(after, tensor), name
            expected[name] = after.contiguous()
        elif any(name == f"{module_name(each)}.weight" for each in case.modules_to_save):
            assert not torch.equal(after, tensor), name
            expected[name] = after.contiguous()
            replaced.append(name)
        else:
            unchanged = torch.equal(after, tensor.to(after.dtype))
            assert unchanged or (case.untie_head and name == EMBEDDING), name
            expected[name] = tensor
    if case.tied and "lm_head" in case.modules_to_save:
        assert not torch.equal(merged[HEAD], merged[EMBEDDING])
        expected[HEAD] = merged[HEAD]
        replaced.append(HEAD)
    return expected, replaced


def module_name(suffix: str) -> str:
    return "model.embed_tokens" if suffix == "embed_tokens" else suffix


def describe(case: Case, dtype: str, targets, replaced, expected, before) -> dict:
    tied_after = case.tied and HEAD not in expected
    return {
        "case": case.name,
        "description": case.description,
        "base_dtype": dtype,
        "adapter_dtype": case.adapter_dtype,
        "delta_ratio": case.delta_ratio,
        "expected_from": PEFT_CALL,
        "seed": case.seed,
        "tie_word_embeddings": {"base": case.tied, "expected": tied_after},
        "targets": targets,
        "replaced": replaced,
        "added": sorted(expected.keys() - before.keys()),
    }


def measure(folder: Path, targets: dict, before: dict, expected: dict) -> dict:
    """How far PEFT's float32 arithmetic is from W + s·B·A in float64, over the targets."""
    adapter = load_file(folder / "adapter" / ADAPTER_FILE)
    elements, absolute_error, not_nearest = 0, 0.0, 0
    for name, target in targets.items():
        stem = PREFIX + name.removesuffix(".weight")
        a = adapter[f"{stem}.lora_A.weight"].double()
        b = adapter[f"{stem}.lora_B.weight"].double()
        assert a.shape[0] == target["rank"], name
        delta = target["scaling"] * (b @ a)
        base = before.get(name, before.get(EMBEDDING)).double()
        exact = base + (delta.T if target["transposed"] else delta)
        got = expected[name]
        elements += got.numel()
        absolute_error += float((got.double() - exact).abs().sum())
        not_nearest += int((got != exact.to(got.dtype)).sum())
    return {
        "elements": elements,
        "elements_not_nearest": not_nearest,
        "mean_absolute_error": absolute_error / elements,
    }


def write_versions() -> None:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for module in (torch, transformers, peft, safetensors, numpy):
        versions[module.__name__] = module.__version__
    versions["bitsandbytes"] = importlib.metadata.version("bitsandbytes")
    (FOLDER / "VERSIONS.json").write_text(json.dumps(versions, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the golden merges.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all of them")
    chosen = parser.parse_args().cases
    unknown = set(chosen) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    # One thread: sums in one order, so that a rerun gives the same bytes.
    torch.set_num_threads(1)
    # PEFT warns of tied weights, which is what some cases are about.
    warnings.simplefilter("ignore")
    for case in CASES:
        if chosen and case.name not in chosen:
            continue
        for dtype in case.base_dtypes:
            folder = FOLDER / "cases" / f"{case.name}-{SHORT[dtype]}"
            report = make_case(case, dtype, folder)
            print(
                f"{folder.name}: {len(report['targets'])} targets,"
                f" {report['elements']} elements, mean error {report['mean_absolute_error']:.3g},"
                f" {report['elements_not_nearest']} not nearest"
            )
    write_versions()


if __name__ == "__main__":
    main()
