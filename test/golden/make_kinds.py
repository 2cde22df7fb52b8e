"""Writes what PEFT makes of adapters beside plain LoRA, and of two adapters merged in turn.

    .oracle/bin/python test/golden/make_kinds.py [CASE ...]

kinds/bases/<architecture>-<dtype>/ holds the bases, and kinds/<case>-<dtype>/
- adapter/ as PEFT saves it, and second/ where there are two,
- merged.safetensors: of each weight that changes, PEFT's merge under the base's name, and under
  `residual.` and that name, in float32, what is to be added to it to give the exact result: the
  formula in float64. The rounding of the residual is far below that of the weight.
- case.json: how far PEFT's merge is from the exact result.
"""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM

from golden_models import ADAPTER_FILE, load_on_disk, read_json, start_folder, tidy
from kinds_cases import CASES, Case
from kinds_formulas import merge_exactly

FOLDER = Path(__file__).resolve().parent / "kinds"
HIDDEN, INTERMEDIATE, VOCABULARY = 32, 48, 40
SHORT = {"bfloat16": "bf16", "float32": "fp32"}
# Frobenius norm of a delta beside its weight's.
DELTA_RATIO = 0.03
# Of each kind, the parameters that its delta is linear in.
STRENGTHS = ("lora_E", "vera_lambda_b", "hada_w2_b", "lokr_w1", "lokr_w1_b", "lora_B",
             "lora_embedding_B")  # fmt: skip


def build_base(architecture: str, dtype: str) -> Path:
    folder = FOLDER / "bases" / f"{architecture}-{SHORT[dtype]}"
    start_folder(folder)
    torch.manual_seed(200)
    sizes = {"vocab_size": VOCABULARY, "tie_word_embeddings": False}
    if architecture == "gpt2":
        config = GPT2Config(n_embd=HIDDEN, n_layer=1, n_head=4, n_inner=INTERMEDIATE,
                            n_positions=16, bos_token_id=1, eos_token_id=2, **sizes)  # fmt: skip
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
                             num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                             max_position_embeddings=16, **sizes)  # fmt: skip
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tidy(folder)
    return folder


def build_adapter(case: Case, options: dict, seed: int, base: Path, folder: Path) -> None:
    torch.manual_seed(seed)
    config = case.config(task_type="CAUSAL_LM", target_modules=list(case.targets), **options)
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = torch.randn_like(parameter)
            if "lora_magnitude_vector" in name or "ia3_l" in name:
                parameter.mul_(1 + 0.05 * noise)
            elif "oft_" in name:
                parameter.copy_(0.05 * noise)
            elif "modules_to_save" in name or name.endswith("bias"):
                parameter.add_(0.02 * noise)
            else:
                parameter.copy_(noise)
        for module in model.modules():
            scale_delta(module)
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = f"weldline/golden-{case.architecture}"
    saved.target_modules = sorted(saved.target_modules)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    tidy(folder)


def scale_delta(module) -> None:
    if not hasattr(module, "get_delta_weight") or hasattr(module, "oft_R"):
        return
    found = [getattr(module, name, {}) for name in STRENGTHS]
    strength = next(each["default"] for each in found if "default" in each)
    strength = getattr(strength, "weight", strength)
    norm = module.get_delta_weight("default").float().norm()
    strength.mul_(DELTA_RATIO * module.get_base_layer().weight.float().norm() / norm)


def load(base: Path):
    return AutoModelForCausalLM.from_pretrained(base)


def merge_with_peft(case: Case, base: Path, folder: Path):
    """The weights that PEFT merges, by name; and the change that a forward pass sees."""
    model = PeftModel.from_pretrained(load(base), folder / "adapter", adapter_name="first")
    names = ["first"]
    if case.second is not None:
        model.load_adapter(folder / "second", adapter_name="second")
        model.base_model.set_adapter(["first", "second"])
        names.append("second")
    tokens = torch.arange(VOCABULARY)[None, :12]
    with torch.no_grad():
        before = model.eval()(tokens).logits.float()
        merged = model.merge_and_unload(adapter_names=names)
        after = merged.eval()(tokens).logits.float()
        plain = load(base).eval()(tokens).logits.float()
    forward = float((before - after).norm() / (before - plain).norm())
    # In 16 bits the roundings of activations are as large as what the adapters change.
    assert forward < 1e-3 or base.name.endswith("bf16"), forward
    return merged.state_dict(), forward


def make_case(case: Case, dtype: str) -> None:
    base = FOLDER / "bases" / f"{case.architecture}-{SHORT[dtype]}"
    folder = FOLDER / f"{case.name}-{SHORT[dtype]}"
    start_folder(folder)
    build_adapter(case, case.options, case.seed, base, folder / "adapter")
    if case.second is not None:
        build_adapter(case, case.second, case.seed + 1000, base, folder / "second")
    merged, forward = merge_with_peft(case, base, folder)
    steps = [
        (read_json(path / "adapter_config.json"), load_file(path / ADAPTER_FILE))
        for path in (folder / "adapter", folder / "second")
        if path.exists()
    ]
    written, elements, error, elements_not_nearest = {}, 0, 0.0, 0
    for name, before in load_on_disk(base).items():
        got = merged[name]
        if torch.equal(got, before):
            continue
        exact = work_out(case, name, before, steps)
        written[name] = got.contiguous()
        written[f"residual.{name}"] = (exact - got.double()).float().contiguous()
        elements += got.numel()
        error += float((got.double() - exact).abs().sum())
        elements_not_nearest += int((exact.to(got.dtype) != got).sum())
        relative = float((got.double() - exact).norm() / exact.norm())
        assert relative < (3e-3 if dtype == "bfloat16" else 3e-7), (case.name, name, relative)
    save_file(written, folder / "merged.safetensors", metadata={"format": "pt"})
    (folder / "merged.safetensors").chmod(0o644)
    report = {
        "case": case.name,
        "base": base.name,
        "elements": elements,
        "elements_not_nearest": elements_not_nearest,
        "mean_absolute_error": error / elements,
        "forward_pass_differs_by": forward,
    }
    (folder / "case.json").write_text(json.dumps(report, indent=2) + "\n")
    print(folder.name, sorted(name for name in written if "residual" not in name), report)


def work_out(case: Case, name: str, before, steps):
    """The exact tensor, where a whole one of the adapter does not take its place."""
    module, _, parameter = name.rpartition(".")
    for config, tensors in steps:
        stem = f"base_model.model.{module}"
        for replacement in (f"{stem}.{parameter}", f"{stem}.base_layer.{parameter}"):
            if replacement in tensors and parameter == "bias":
                return tensors[replacement].double()
        if f"{stem}.weight" in tensors and module in (config["modules_to_save"] or []):
            return tensors[f"{stem}.weight"].double()
        if parameter == "bias":
            return before.double() * tensors[f"{stem}.ia3_l"].double().flatten()
    exact = before.double()
    for config, tensors in steps:
        exact = merge_exactly(config, tensors, module, exact, before.double())
    return exact


def main() -> None:
    chosen = sys.argv[1:]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for architecture in ("llama", "gpt2"):
        for dtype in SHORT:
            build_base(architecture, dtype)
    for case in CASES:
        if chosen and case.name not in chosen:
            continue
        for dtype in case.dtypes:
            make_case(case, dtype)


if __name__ == "__main__":
    main()
