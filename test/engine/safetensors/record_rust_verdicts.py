"""Says what the reference implementation of safetensors makes of files.

Standard input holds files, each after its length (4 bytes, little-endian). For each file a line is
printed: `-` if it is refused, else eight bytes of a SHA-256 over its tensors in the order of their
lines, as describe-file.ts computes it. Run by record-rust-verdicts.ts.
"""

import hashlib
import struct
import sys

from safetensors import deserialize


def digest_of_content(file: bytes) -> str:
    try:
        tensors = deserialize(file)
    except Exception:  # noqa: BLE001 - any refusal counts
        return "-"
    lines = []
    for name, tensor in tensors:
        shape = ",".join(str(extent) for extent in tensor["shape"])
        data = hashlib.sha256(bytes(tensor["data"])).hexdigest()
        lines.append(f"{name}|{tensor['dtype']}|{shape}|{data}\n".encode())
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()[:16]


def main() -> None:
    files = sys.stdin.buffer.read()
    position = 0
    while position < len(files):
        (length,) = struct.unpack_from("<I", files, position)
        position += 4
        print(digest_of_content(files[position : position + length]))
        position += length


if __name__ == "__main__":
    main()
