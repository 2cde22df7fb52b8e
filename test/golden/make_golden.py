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
    load_on_disk,
    load_resized,
    start_folder,
    target_of,
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
    model = PeftModel.from_pretrained(
        load_resized(case, folder / "base", dtype), folder / "adapter"
    )
    targets, biases = find_targets(model), find_biases(model)
    once = add_once(case, model)
    resized = {name: model.get_parameter(at).detach().clone() for name, at in ends(model).items()}
    merged = model.merge_and_unload(safe_merge=False).state_dict()
    check_rounding(once, merged)
    merged |= {name: sums for name, (sums, _) in once.items()}
    if case.untie is not None:
        other = EMBEDDING if case.untie == "lm_head" else HEAD
        merged[other] = before[EMBEDDING]
    expected, replaced = choose_expected(case, before, merged, {*targets, *biases})
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    (folder / "expected.safetensors").chmod(0o644)
    report = describe(case, dtype, targets, replaced, expected, before)
    if biases:
        report["lora_biases"] = biases
    if case.vocabulary is not None:
        report["vocabulary"] = case.vocabulary
    report |= measure(folder, targets, before | resized, expected)
    (folder / "case.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def layers(model):
    """Name and module of every layer that LoRA is on."""
    return [
        (name.removeprefix(PREFIX), module)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and target_of(module) is not None
    ]


def find_targets(model) -> dict[str, dict]:
    """Name of each targeted weight to its own rank and scaling, as PEFT resolved them."""
    return {
        f"{name}.weight": {
            "rank": module.r["default"],
            "scaling": module.scaling["default"],
            "transposed": bool(module.fan_in_fan_out) or "default" in module.lora_embedding_A,
        }
        for name, module in layers(model)
    }


def find_biases(model) -> dict[str, float]:
    """Name of each bias that a lora_bias is added to, and the scaling."""
    return {
        f"{name}.bias": module.scaling["default"]
        for name, module in layers(model)
        if module.lora_bias["default"]
    }


def add_once(case: Case, model) -> dict:
    """Weights to which PEFT's delta was added with one rounding, and PEFT's own result.

    For an embedding PEFT rounds the delta first. On a tied pair it would add to both sides.
    """
    sums = {}
    with torch.no_grad():
        for name, module in layers(model):
            if "default" in module.lora_embedding_A or name == case.untie:
                weight = module.get_base_layer().weight
                delta = module.get_delta_weight("default")
                # In place, so that torch rounds the float32 sum once.
                once = weight.clone()
                once += delta
                theirs = weight + delta.to(weight.dtype)
                is_embedding = "default" in module.lora_embedding_A
                sums[f"{name}.weight"] = (once, theirs if is_embedding else once.clone())
    return sums


def check_rounding(once: dict, merged: dict) -> None:
    for name, (_, theirs) in once.items():
        assert torch.equal(merged[name], theirs), name


def ends(model) -> dict[str, str]:
    """The weights at both ends of the model and where they are before the merge."""
    return {
        name: path
        for name, suffix in ((EMBEDDING, "embed_tokens"), (HEAD, "lm_head"))
        for path, _ in model.named_parameters()
        if path.endswith((f"{suffix}.base_layer.weight", f".{suffix}.weight"))
    }


def choose_expected(case: Case, before: dict, merged: dict, targets: set):
    """The tensors on disk after the merge, and the names of those replaced as a whole or in rows.

    What PEFT did not touch is taken from the base's files, not from the loaded model, which has
    one dtype throughout. Raises AssertionError when the model changed anything else.
    """
    expected, replaced = {}, []
    for name, tensor in before.items():
        after = merged[name]
        if name in targets:
            assert after.dtype == tensor.dtype, name
            assert after.shape != tensor.shape or not torch.equal(after, tensor), name
            expected[name] = after.contiguous()
        elif is_replaced(case, name):
            assert after.shape != tensor.shape or not torch.equal(after, tensor), name
            expected[name] = after.contiguous()
            replaced.append(name)
        else:
            assert torch.equal(after, tensor.to(after.dtype)), name
            expected[name] = tensor
    if HEAD not in expected and (HEAD in targets or is_untied(case)):
        expected[HEAD] = merged[HEAD].clone()
        if HEAD not in targets:
            replaced.append(HEAD)
    return expected, replaced


def is_untied(case: Case) -> bool:
    return case.tied and ("lm_head" in case.modules_to_save or case.untie is not None)


def is_replaced(case: Case, name: str) -> bool:
    module, _, parameter = name.rpartition(".")
    bias = case.lora.get("bias", "none")
    if parameter == "bias" and bias != "none":
        return bias == "all" or module.endswith(case.target_modules)
    if case.vocabulary is not None and name in (EMBEDDING, HEAD):
        return True
    indices = case.lora.get("trainable_token_indices")
    tokens = indices if isinstance(indices, dict) else ["embed_tokens"] if indices else []
    return any(module == module_name(each) for each in (*case.modules_to_save, *tokens))


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
        if f"{stem}.lora_embedding_A" in adapter:
            a, b = adapter[f"{stem}.lora_embedding_A"], adapter[f"{stem}.lora_embedding_B"]
        else:
            a, b = adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"]
        assert a.shape[0] == target["rank"], name
        delta = target["scaling"] * (b.double() @ a.double())
        exact = before.get(name, before.get(EMBEDDING)).double()
        exact = exact + (delta.T if target["transposed"] else delta)
        magnitude = adapter.get(f"{stem}.lora_magnitude_vector")
        if magnitude is not None:
            exact = magnitude.double()[:, None] / exact.norm(dim=1, keepdim=True) * exact
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
    # Which make_bases.py takes code from, without installing them.
    versions |= {"auto-gptq": "0.7.1", "autoawq": "0.2.9"}
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
