"""Compares two checkpoints tensor by tensor.

    python oracle/compare.py A B --json [OUT]      (directories or .safetensors files)

For each tensor: how many elements differ, in parts per million, the largest distance in roundings
(steps between neighbouring values of the dtype; +0 and -0 are one value) and the largest absolute
difference. Exit code 0 whether or not values differ; 1 when the tensors' names, shapes or dtypes
do, or a file is malformed. Needs numpy only, and memory for some chunks of a million elements.
"""

import argparse
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy

# Elements read at a time from each side.
CHUNK_ELEMENTS = 1 << 20
HEADER_BYTES_MAX = 100_000_000
# The integer type that holds each dtype's bits. Floating-point ones are compared in roundings.
FLOAT_BITS = {
    "F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
}  # fmt: skip
OTHER_BITS = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8",
}  # fmt: skip


class CheckpointError(Exception):
    """Says which file or tensor is wrong."""


@dataclass(frozen=True)
class Tensor:
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    byte_length: int

    @property
    def bits(self) -> numpy.dtype:
        name = FLOAT_BITS.get(self.dtype) or OTHER_BITS.get(self.dtype)
        if name is None:
            raise CheckpointError(f"{self.path}: dtype {self.dtype} is not supported")
        return numpy.dtype(name)


def read_checkpoint(source: Path) -> dict[str, Tensor]:
    paths = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
    if not paths:
        raise CheckpointError(f"{source} holds no .safetensors file")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in read_header(path).items():
            if name in tensors:
                raise CheckpointError(f"{name} is in {path.name} and {tensors[name].path.name}")
            tensors[name] = tensor
    return tensors


def read_header(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else HEADER_BYTES_MAX + 1
        if length > HEADER_BYTES_MAX:
            raise CheckpointError(f"{path} is not a safetensors file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors[name] = Tensor(path, entry["dtype"], shape, 8 + length + start, end - start)
    return tensors


def read_chunks(tensor: Tensor) -> Iterator[numpy.ndarray]:
    """The bit patterns, in order."""
    chunk_bytes = CHUNK_ELEMENTS * tensor.bits.itemsize
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        for start in range(0, tensor.byte_length, chunk_bytes):
            wanted = min(chunk_bytes, tensor.byte_length - start)
            data = file.read(wanted)
            if len(data) != wanted:
                raise CheckpointError(f"{tensor.path} is truncated")
            yield numpy.frombuffer(data, tensor.bits)


def to_steps(bits: numpy.ndarray) -> numpy.ndarray:
    """Maps bit patterns of a float to integers in the order of the values, 1 apart."""
    width = bits.dtype.itemsize * 8
    magnitude = (bits & bits.dtype.type((1 << (width - 1)) - 1)).astype(numpy.int64)
    return numpy.where(bits >> bits.dtype.type(width - 1) != 0, -magnitude, magnitude)


def to_values(bits: numpy.ndarray, dtype: str) -> numpy.ndarray | None:
    """As float64; None for the 8-bit floats, whose distance in roundings says enough."""
    if dtype == "BF16":
        bits, dtype = bits.astype("<u4") << numpy.uint32(16), "F32"
    views = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    return bits.view(views[dtype]).astype(numpy.float64) if dtype in views else None


def distance(a: Tensor, b: Tensor) -> dict:
    is_float = a.dtype in FLOAT_BITS
    elements = different = roundings_max = 0
    absolute_max = 0.0
    for left, right in zip(read_chunks(a), read_chunks(b), strict=True):
        elements += left.size
        unequal = left != right
        if not unequal.any():
            continue
        left, right = left[unequal], right[unequal]
        if not is_float:
            different += left.size
            continue
        # int64 wraps for float64 values of opposite signs, which differ by more than it holds.
        steps = numpy.abs(to_steps(left) - to_steps(right))
        different += int(numpy.count_nonzero(steps))
        roundings_max = max(roundings_max, int(steps.max()))
        values = to_values(left, a.dtype), to_values(right, a.dtype)
        if values[0] is not None:
            gaps = numpy.abs(values[0] - values[1])
            # A NaN or an infinity counts as different, but has no distance.
            absolute_max = max(absolute_max, float(gaps[numpy.isfinite(gaps)].max(initial=0.0)))
    return {
        "dtype": a.dtype,
        "elements": elements,
        "different": different,
        "ppm": round(1e6 * different / elements, 3) if elements else 0.0,
        "roundings_max": roundings_max,
        "absolute_max": absolute_max,
    }


def compare(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict:
    mismatched = [
        name
        for name in sorted(a.keys() & b.keys())
        if (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)
    ]
    shared = [name for name in sorted(a.keys() & b.keys()) if name not in mismatched]
    tensors = {name: distance(a[name], b[name]) for name in shared}
    elements = sum(each["elements"] for each in tensors.values())
    different = sum(each["different"] for each in tensors.values())
    return {
        "only_in_a": sorted(a.keys() - b.keys()),
        "only_in_b": sorted(b.keys() - a.keys()),
        "mismatched": mismatched,
        "elements": elements,
        "different": different,
        "ppm": round(1e6 * different / elements, 3) if elements else 0.0,
        "roundings_max": max((each["roundings_max"] for each in tensors.values()), default=0),
        "absolute_max": max((each["absolute_max"] for each in tensors.values()), default=0.0),
        "tensors": tensors,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares two checkpoints.")
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--json", nargs="?", const="-", help="write the report; default: summary")
    arguments = parser.parse_args()
    try:
        report = compare(read_checkpoint(arguments.a), read_checkpoint(arguments.b))
    except (CheckpointError, OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    text = json.dumps(report, indent=1) + "\n"
    if arguments.json is None:
        print({key: value for key, value in report.items() if key != "tensors"})
    elif arguments.json == "-":
        sys.stdout.write(text)
    else:
        Path(arguments.json).write_text(text)
    return 1 if report["only_in_a"] or report["only_in_b"] or report["mismatched"] else 0


if __name__ == "__main__":
    sys.exit(main())
