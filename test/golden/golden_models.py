"""Builds a case's base checkpoint and its adapter, both saved by the libraries users have."""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM

from golden_cases import BFLOAT16, FLOAT32, Case

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY = 64, 128, 2, 4, 2, 100
# The spread that trained matrices of this width have.
WEIGHT_DEVIATION = 0.08
# Of lora_bias, beside biases of 0.1.
BIAS_DEVIATION = 0.003
BASE_NAMES = {"llama": "weldline/golden-llama", "gpt2": "weldline/golden-gpt2"}
# Splits each of the Llama bases in bfloat16 into three files.
SHARD_BYTES_MAX = "70KB"
WEIGHTS_FILE = "model.safetensors"
ADAPTER_FILE = "adapter_model.safetensors"


def build_base(case: Case, dtype: str, folder: Path) -> None:
    torch.manual_seed(case.seed)
    model = _new_model(case)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                centre = 1.0 if _is_norm_weight(name) else 0.0
                parameter.copy_(centre + 0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(WEIGHT_DEVIATION * torch.randn_like(parameter))
    model = model.to(getattr(torch, dtype))
    options = {"max_shard_size": SHARD_BYTES_MAX} if case.sharded else {}
    model.save_pretrained(folder, **options)
    if case.float32_norms:
        _widen_norms(folder / WEIGHTS_FILE)
    tidy(folder)


def _new_model(case: Case):
    if case.architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_positions=64, n_embd=HIDDEN, n_layer=LAYERS,
                n_head=HEADS, n_inner=INTERMEDIATE, bos_token_id=1, eos_token_id=2,
                tie_word_embeddings=case.tied,
            )
        )  # fmt: skip
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
            max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
            tie_word_embeddings=case.tied,
        )
    )  # fmt: skip


def _is_norm_weight(name: str) -> bool:
    module = name.removesuffix(".weight")
    return name.endswith(".weight") and ("norm" in module or ".ln_" in module)


def _widen_norms(path: Path) -> None:
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if _is_norm_weight(name):
            tensors[name] = 1.0 + 0.1 * torch.randn(tensor.shape, dtype=torch.float32)
    save_file(tensors, path, metadata={"format": "pt"})


def load_base(folder: Path, dtype: str):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))


def load_resized(case: Case, folder: Path, dtype: str):
    """The base as the adapter was trained on it, with new rows where the case adds tokens."""
    model = load_base(folder, dtype)
    if case.vocabulary is not None:
        model.resize_token_embeddings(case.vocabulary)
    return model


def build_adapter(case: Case, dtype: str, base: Path, folder: Path) -> None:
    torch.manual_seed(case.seed + 1000)
    model = load_resized(case, base, dtype)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=list(case.target_modules),
        modules_to_save=list(case.modules_to_save) or None,
        **case.lora,
    )
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_" in name:
                parameter.copy_(torch.randn_like(parameter))
                if name.endswith(".bias"):
                    parameter.mul_(BIAS_DEVIATION)
            elif is_trained_in_full(name, parameter):
                parameter.add_(0.02 * torch.randn_like(parameter))
            elif "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
        for module in model.modules():
            if hasattr(module, "lora_B") and target_of(module) is not None:
                _scale_delta(module, case.delta_ratio)
    # Set by PEFT from where the base lies; sets have no order, and the file shall have one.
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = BASE_NAMES[case.architecture]
    saved.target_modules = sorted(saved.target_modules)
    # Where the base lies is not to be found out by then, so PEFT cannot see that it was resized.
    resized = {} if case.vocabulary is None else {"save_embedding_layers": True}
    model.save_pretrained(folder, **resized)
    (folder / "README.md").unlink()  # PEFT's template of a model card.
    if case.adapter_dtype != FLOAT32:
        path = folder / ADAPTER_FILE
        converted = {
            name: tensor.to(getattr(torch, case.adapter_dtype))
            for name, tensor in load_file(path).items()
        }
        save_file(converted, path, metadata={"format": "pt"})
    tidy(folder)


def _scale_delta(module, ratio: float) -> None:
    """Scales B so that the delta's Frobenius norm is `ratio` of its weight's."""
    weight_norm = module.get_base_layer().weight.float().norm()
    delta_norm = module.get_delta_weight("default").float().norm()
    target_of(module)[1].mul_(ratio * weight_norm / delta_norm)


def target_of(module):
    """A and B of a layer that LoRA is on, or None."""
    if "default" in module.lora_A:
        return module.lora_A["default"].weight, module.lora_B["default"].weight
    if "default" in module.lora_embedding_A:
        return module.lora_embedding_A["default"], module.lora_embedding_B["default"]
    return None


def is_trained_in_full(name: str, parameter) -> bool:
    """Whether a parameter that belongs to no LoRA was trained."""
    return parameter.requires_grad and "lora_" not in name


def load_on_disk(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint directory under the names they have in its files."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def tidy(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors leaves its temporary file's 0600


def start_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
