"""Writes bases of other quantisations than bitsandbytes', and what the references make of them.

    pip download --no-deps auto-gptq==0.7.1 && unzip auto_gptq-*.whl -d autogptq
    pip download --no-deps --no-binary :all: autoawq==0.2.9 && tar xzf autoawq-*.tar.gz
    .oracle/bin/python test/golden/make_bases.py --gptq autogptq --awq autoawq-0.2.9

For each case, bases/<case>/ holds base/ and dequantized.safetensors: what AutoGPTQ's `QuantLinear`,
AutoAWQ's `dequantize_gemm`, transformers (FP8, MXFP4) or bitsandbytes (NF4, for simulated_nf4) make
of each quantised weight on a CPU. linear-modules.json says which parameters transformers would have
bitsandbytes quantise, by model_type.
"""

import argparse
import importlib.util
import json
import os
import sys
import types
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import bitsandbytes.functional as bitsandbytes
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "bases"
LAYER = "model.layers.0"
DEVIATION = 0.02
PLAIN_TYPES = (
    "cohere cohere2 exaone4 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_neox granite helium llama "
    "ministral mistral nemotron olmo olmo2 olmo3 opt phi phi3 qwen2 qwen3 seed_oss smollm3 stablelm "
    "starcoder2"
).split()


def save(name: str, tensors: dict, expected: dict, config: dict) -> None:
    folder = FOLDER / name
    (folder / "base").mkdir(parents=True, exist_ok=True)
    write(tensors, folder / "base" / "model.safetensors")
    write(expected, folder / "dequantized.safetensors")
    (folder / "base" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(name)


def write(tensors: dict, path: Path) -> None:
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)


def normal(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return (DEVIATION * torch.randn(shape)).to(dtype)


def plain(dtype: torch.dtype) -> dict:
    return {
        "model.embed_tokens.weight": normal(8, 96, dtype=dtype),
        "model.norm.weight": normal(96, dtype=dtype),
        f"{LAYER}.self_attn.q_proj.bias": normal(40, dtype=dtype),
    }


def llama(dtype: str, quantization: dict | None, model_type: str = "llama") -> dict:
    config = {"model_type": model_type, "tie_word_embeddings": True, "torch_dtype": dtype}
    return config if quantization is None else config | {"quantization_config": quantization}


# --- GPTQ


def load_gptq(root: Path):
    path = root / "auto_gptq" / "nn_modules" / "qlinear" / "qlinear_cuda.py"
    spec = importlib.util.spec_from_file_location("qlinear_cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.QuantLinear


def gptq_weight(linear_class, shape, bits, group_size, act_order, symmetric, dtype):
    out, inputs = shape
    layer = linear_class(bits, group_size, inputs, out, bias=False, weight_dtype=dtype)
    linear = torch.nn.Linear(inputs, out, bias=False)
    linear.weight.data = normal(out, inputs).to(dtype)
    groups = layer.scales.shape[0]
    order = torch.randperm(inputs) if act_order else torch.arange(inputs)
    g_idx = torch.empty(inputs, dtype=torch.int32)
    g_idx[order] = (torch.arange(inputs) // layer.group_size).to(torch.int32)
    largest = 2**bits - 1
    # Never 0: less one, it would spill over the bits of its neighbours.
    zeros = torch.randint(1, largest, (out, groups)).float()
    if symmetric:
        zeros = torch.full((out, groups), float(2 ** (bits - 1)))
    scales = (DEVIATION * (6 / largest) * (0.5 + torch.rand(out, groups))).to(dtype)
    layer.pack(linear, scales.float(), zeros, g_idx)
    layer.scales = scales.t().contiguous()
    # Codes that clipping leaves out; packed from beyond the ends, they would spill over.
    layer.qweight = torch.randint(-(2**31), 2**31, layer.qweight.shape, dtype=torch.int64).int()
    weight = layer(torch.eye(inputs, dtype=dtype)).t()
    return layer, weight


def make_gptq(name, linear_class, bits, group_size, *, act_order=False, symmetric=False,
              version=1, dtype=torch.float16):  # fmt: skip
    tensors, expected = plain(dtype), {}
    for module, shape in (("self_attn.q_proj", (32, 96)), ("mlp.down_proj", (32, 160))):
        stem = f"{LAYER}.{module}"
        layer, weight = gptq_weight(
            linear_class, shape, bits, group_size, act_order, symmetric, dtype
        )
        if version == 2:
            # GPTQModel's conversion of the one convention to the other.
            one_each = sum(1 << (bits * i) for i in range(32 // bits))
            layer.qzeros += one_each
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            tensors[f"{stem}.{part}"] = getattr(layer, part)
        expected[f"{stem}.weight"] = weight
    quantization = {
        "quant_method": "gptq", "bits": bits, "group_size": group_size, "desc_act": act_order,
        "sym": symmetric, "damp_percent": 0.01, "true_sequential": True,
    }  # fmt: skip
    if version == 2:
        quantization["checkpoint_format"] = "gptq_v2"
    save(name, tensors, expected, llama(str(dtype).removeprefix("torch."), quantization))


# --- AWQ


def load_awq(root: Path):
    # As packages without their __init__, which imports models and kernels.
    for name in ("awq", "awq.utils", "awq.modules", "awq.modules.linear"):
        package = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    return WQLinear_GEMM, dequantize_gemm


def make_awq(name, awq, group_size):
    linear_class, dequantize = awq
    tensors, expected = plain(torch.float16), {}
    for module, (out, inputs) in (("self_attn.q_proj", (32, 96)), ("mlp.down_proj", (32, 160))):
        stem = f"{LAYER}.{module}"
        size = inputs if group_size == -1 else group_size
        groups = inputs // size
        zeros = torch.randint(0, 16, (groups, out))
        scales = (0.008 * (0.5 + torch.rand(groups, out))).half()
        # What packing rounds to these codes.
        codes = torch.randint(0, 16, (inputs, out))
        spread = [each.repeat_interleave(size, dim=0) for each in (scales, zeros)]
        linear = torch.nn.Linear(inputs, out, bias=False)
        linear.weight.data = ((codes - spread[1]) * spread[0].float()).t().contiguous()
        layer = linear_class.from_linear(linear, 4, size, scales=scales.float(), zeros=zeros)
        layer.scales = scales
        for part in ("qweight", "qzeros", "scales"):
            tensors[f"{stem}.{part}"] = getattr(layer, part)
        weight = dequantize(layer.qweight, layer.qzeros, scales, 4, size)
        assert torch.equal(weight, ((codes - spread[1]) * spread[0]))
        expected[f"{stem}.weight"] = weight.t()
    quantization = {
        "quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True,
        "version": "gemm",
    }  # fmt: skip
    save(name, tensors, expected, llama("float16", quantization))


# --- FP8 and MXFP4


def codes_of(*shape: int) -> torch.Tensor:
    """All codes of E4M3 but its two NaNs."""
    codes = torch.randint(0, 254, shape, dtype=torch.uint8)
    codes[codes >= 127] += 1
    return codes.view(torch.float8_e4m3fn)


def make_fp8(name, shapes, blocks, scale_dtype=torch.float32, dtype="bfloat16"):
    tensors, expected = plain(getattr(torch, dtype)), {}
    reference = Fp8Dequantize(None)
    for module, shape in shapes:
        weight = codes_of(*shape)
        grid = [] if blocks is None else [-(-shape[i - 2] // blocks[i]) for i in range(2)]
        scales = (1e-4 * (0.5 + torch.rand((*shape[:-2], *grid)))).to(scale_dtype)
        tensors[f"{LAYER}.{module}"] = weight
        tensors[f"{LAYER}.{module}_scale_inv"] = scales
        if blocks is None:
            tensors[f"{LAYER}.{module.removesuffix('weight')}activation_scale"] = torch.tensor(0.1)
        if blocks is None or all(shape[i - 2] % blocks[i] == 0 for i in range(2)):
            value = reference._dequantize_one(weight, scales, getattr(torch, dtype))
        else:
            # DeepSeek's kernel masks what is beyond the ends.
            spread = scales.float()
            for i in range(2):
                spread = spread.repeat_interleave(blocks[i], dim=i - 2)
            value = weight.float() * spread[..., : shape[-2], : shape[-1]]
            value = value.to(getattr(torch, dtype))
        expected[f"{LAYER}.{module}"] = value.reshape(shape)
    quantization = {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": blocks,
    }  # fmt: skip
    save(name, tensors, expected, llama(dtype, quantization))


def make_mxfp4():
    tensors, expected = plain(torch.bfloat16), {}
    for part, (out, groups) in (("gate_up_proj", (40, 3)), ("down_proj", (24, 2))):
        blocks = torch.randint(0, 256, (2, out, groups, 16), dtype=torch.uint8)
        scales = torch.randint(112, 124, (2, out, groups), dtype=torch.uint8)
        # The ends of what is finite, and what bfloat16 has as subnormals only.
        scales[0, 0, 0], scales[1, 1, 1], scales[1, 2, 0] = 0, 250, 2
        stem = f"{LAYER}.mlp.experts.{part}"
        tensors[f"{stem}_blocks"], tensors[f"{stem}_scales"] = blocks, scales
        tensors[f"{stem}_bias"] = normal(2, out, dtype=torch.bfloat16)
        expected[stem] = convert_moe_packed_tensors(blocks, scales)
    shape = (40, 96)
    tensors[f"{LAYER}.self_attn.q_proj.weight"] = normal(*shape, dtype=torch.bfloat16)
    quantization = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.embed_tokens"],
    }
    config = llama("bfloat16", quantization, "gpt_oss")
    del config["torch_dtype"]
    save("mxfp4", tensors, expected, config)


# --- simulated NF4


def nf4(weight: torch.Tensor) -> torch.Tensor:
    packed, state = bitsandbytes.quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
    # The reference of its backends. Its AVX-512 kernel begins the blocks of a row of 96 anew.
    value = _dequantize_4bit_compute(
        packed.reshape(-1), state.absmax, state.code, 64, weight.shape, weight.dtype
    )
    kernel = bitsandbytes.dequantize_4bit(packed, state)
    assert weight.shape[-1] % 64 != 0 or torch.equal(kernel, value)
    return value.reshape(weight.shape)


def make_simulated(dtype: str):
    torch_dtype = getattr(torch, dtype)
    tensors, expected = plain(torch_dtype), {}
    tensors["lm_head.weight"] = normal(8, 96, dtype=torch_dtype)
    shapes = (("self_attn.q_proj", (24, 96)), ("self_attn.k_proj", (5, 13)), ("mlp.up_proj", (24, 200)))
    for module, shape in shapes:
        weight = torch.randn(shape)
        if module == "mlp.up_proj":
            # Every size that weights may have, blocks of zeros, and maxima that are subnormal.
            weight *= 10.0 ** torch.randint(-6, 3, (24, 1))
            weight[0], weight[1], weight[2, :70] = 0, 1e-39 * weight[1], 0
        name = f"{LAYER}.{module}.weight"
        tensors[name] = weight.to(torch_dtype)
        expected[name] = nf4(tensors[name])
    save(f"simulated-{dtype}", tensors, expected, llama(dtype, None))


def make_conv1d():
    tensors, expected = {}, {}
    tensors["transformer.wte.weight"] = normal(8, 64)
    tensors["transformer.wpe.weight"] = normal(4, 64)
    for module, shape in (("attn.c_attn", (64, 72)), ("mlp.c_proj", (128, 40))):
        name = f"transformer.h.0.{module}.weight"
        tensors[name] = normal(*shape)
        expected[name] = nf4(tensors[name].T).T
    save("simulated-conv1d", tensors, expected, llama("float32", None, "gpt2"))


SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "head_dim": 16, "n_embd": 64, "n_layer": 2,
    "n_head": 4, "ffn_dim": 128, "word_embed_proj_dim": 64, "pad_token_id": 0,
}  # fmt: skip


def linear_modules() -> dict:
    found = {}
    for model_type in PLAIN_TYPES:
        for tied in (False, True):
            config = AutoConfig.for_model(model_type, **SMALL, tie_word_embeddings=tied)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
            skipped = HfQuantizer.get_modules_to_not_convert(
                model, None, model._keep_in_fp32_modules
            )
            quantized = {
                f"{name}.weight"
                for name, module in model.named_modules()
                if should_convert_module(name, skipped)
                and (isinstance(module, Conv1D) or type(module) is torch.nn.Linear)
            }
            parameters = {
                name: [list(parameter.shape), name in quantized]
                for name, parameter in model.named_parameters(remove_duplicate=False)
                # Layers are alike.
                if ".1." not in name
            }
            found[f"{model_type}{'-tied' if tied else ''}"] = parameters
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes goldens of quantised bases.")
    parser.add_argument("--gptq", type=Path, required=True, help="auto-gptq's wheel, unpacked")
    parser.add_argument("--awq", type=Path, required=True, help="autoawq's source, unpacked")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(71)
    warnings.simplefilter("ignore")
    with torch.no_grad():
        gptq = load_gptq(arguments.gptq)
        make_gptq("gptq-4-symmetric", gptq, 4, 32, symmetric=True)
        make_gptq("gptq-4-act_order", gptq, 4, 32, act_order=True)
        make_gptq("gptq-4-bfloat16", gptq, 4, -1, dtype=torch.bfloat16)
        make_gptq("gptq-8", gptq, 8, 32, act_order=True)
        make_gptq("gptq_v2-4", gptq, 4, 64, version=2)
        make_gptq("gptq_v2-8", gptq, 8, -1, version=2)
        awq = load_awq(arguments.awq)
        make_awq("awq", awq, 32)
        make_awq("awq-one_group", awq, -1)
        matrices = (("self_attn.q_proj.weight", (40, 96)), ("mlp.down_proj.weight", (32, 160)))
        make_fp8("fp8", (matrices[0], ("mlp.down_proj.weight", (24, 96))), [8, 32])
        make_fp8("fp8-partial_blocks", matrices, [32, 64])
        make_fp8("fp8-bfloat16_scales", matrices, [8, 32], torch.bfloat16, "float16")
        make_fp8("fp8-per_tensor", matrices, None)
        experts = (matrices[0], ("mlp.experts.down_proj", (3, 40, 96)))
        make_fp8("fp8-experts", experts, [32, 32])
        make_mxfp4()
        for dtype in ("bfloat16", "float16", "float32"):
            make_simulated(dtype)
        make_conv1d()
    text = json.dumps(linear_modules(), separators=(",", ":")).replace('"},"', '"},\n"')
    (HERE / "linear-modules.json").write_text(text.replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
