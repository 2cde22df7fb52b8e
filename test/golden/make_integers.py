"""Writes weights that compressed-tensors packed to integers, and what it dequantises them to.

    .tools/python/bin/python test/golden/make_integers.py

integers/<case>.safetensors has `weight_packed`, `weight_scale`, `weight_shape` and, if asymmetric,
`weight_zero_point`, as `PackedQuantizationCompressor` writes them, and `dequantized`: what it makes of
them again, in the dtype of the scale. The metadata have bits, group size and versions.
"""

from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parent / "integers"
ROWS = 12  # more than a word of zero points, and no multiple of one
COLUMNS = 64
CASES = [
    ("w4-symmetric", 4, 32, True, torch.bfloat16),
    ("w4-asymmetric", 4, 16, False, torch.bfloat16),
    ("w4-float16", 4, 32, False, torch.float16),
    ("w8-symmetric", 8, 64, True, torch.bfloat16),
    ("w8-asymmetric", 8, 32, False, torch.float32),
]


def make(bits: int, group_size: int, symmetric: bool, dtype: torch.dtype) -> dict:
    arguments = QuantizationArgs(
        num_bits=bits, type="int", symmetric=symmetric, strategy="group", group_size=group_size
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    weight = (torch.randn(ROWS, COLUMNS) + 0.5).to(dtype)
    groups = weight.reshape(ROWS, -1, group_size)
    scale, zero_point = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero_point.to(torch.int8)}
    packed = PackedQuantizationCompressor.compress(state, scheme)
    restored = PackedQuantizationCompressor.decompress(packed, scheme)
    return {**packed, "dequantized": restored["weight"]}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    versions = {f"version_{name}": version(name) for name in ("compressed-tensors", "torch")}
    for index, (name, bits, group_size, symmetric, dtype) in enumerate(CASES):
        torch.manual_seed(index)
        tensors = make(bits, group_size, symmetric, dtype)
        metadata = {"bits": str(bits), "group_size": str(group_size), **versions}
        path = FOLDER / f"{name}.safetensors"
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata=metadata)
        path.chmod(0o644)
        print(name, {n: (str(t.dtype), list(t.shape)) for n, t in tensors.items()})


if __name__ == "__main__":
    main()
