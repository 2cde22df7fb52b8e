"""Writes a minimal ELF shared library whose functions do nothing but return.

It stands in for a library that must be *loadable* but is never called, so it needs no compiler:
a dozen bytes of machine code and the tables the loader reads. There are no relocations and no
section headers; glibc's loader works from the program headers and the dynamic section only.
"""

import struct
from dataclasses import dataclass
from typing import Iterable

MACHINE_X86_64 = 62
MACHINE_AARCH64 = 183

# Large enough for the pages of every kernel that runs the supported machines.
PAGE_BYTES = 0x10000
# What a stubbed data symbol points to: zeros, more than any of them is known to occupy.
DATA_BYTES = 256

RETURN_CODE = {
    MACHINE_X86_64: bytes.fromhex("b8 64 00 00 00 c3"),  # mov eax, 100; ret
    MACHINE_AARCH64: bytes.fromhex("80 0c 80 52 c0 03 5f d6"),  # mov w0, #100; ret
}
# The string follows the code directly: callers of "...GetErrorString" measure what they get.
RETURN_TEXT = {
    MACHINE_X86_64: bytes.fromhex("48 8d 05 01 00 00 00 c3"),  # lea rax, [rip + 1]; ret
    MACHINE_AARCH64: bytes.fromhex("40 00 00 10 c0 03 5f d6"),  # adr x0, #8; ret
}
TEXT = b"not available on this machine\0"


@dataclass(frozen=True)
class StubSymbol:
    name: str
    version: str | None
    is_data: bool = False
    returns_text: bool = False


class StringTable:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


def elf_hash(name: str) -> int:
    """The hash function of DT_HASH and of version names (System V ABI, chapter 5)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def _align(data: bytearray, to: int) -> int:
    data += bytes(-len(data) % to)
    return len(data)


def _version_definitions(soname: str, versions: list[str], strings: StringTable) -> bytes:
    # Index 1 is the file itself; the symbols' versions follow from 2.
    table = bytearray()
    for position, name in enumerate([soname, *versions]):
        is_last = position == len(versions)
        flags = 1 if position == 0 else 0
        table += struct.pack(
            "<HHHHIII", 1, flags, position + 1, 1, elf_hash(name), 20, 0 if is_last else 28
        )
        table += struct.pack("<II", strings.add(name), 0)
    return bytes(table)


def _hash_table(names: list[str]) -> bytes:
    """DT_HASH over the symbols, whose entry 0 is the mandatory null symbol."""
    bucket_count = max(1, len(names))
    buckets, chains = [0] * bucket_count, [0] * (len(names) + 1)
    for index, name in enumerate(names, start=1):
        slot = elf_hash(name) % bucket_count
        chains[index], buckets[slot] = buckets[slot], index
    words = [bucket_count, len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def build_stub(machine: int, soname: str, symbols: Iterable[StubSymbol]) -> bytes:
    """The bytes of a shared library named `soname` that defines `symbols`.

    Functions return 100 (CUDA's "no device") or a fixed text; data symbols are zeros.
    """
    ordered = sorted(symbols, key=lambda symbol: symbol.name)
    versions = sorted({symbol.version for symbol in ordered if symbol.version})
    strings = StringTable()
    soname_offset = strings.add(soname)
    definitions = _version_definitions(soname, versions, strings)
    name_offsets = [strings.add(symbol.name) for symbol in ordered]

    # First segment, read and execute: everything but the dynamic section and the data.
    image = bytearray(64 + 4 * 56)
    code_at = len(image)
    image += RETURN_CODE[machine]
    text_at = _align(image, 8)
    image += RETURN_TEXT[machine] + TEXT
    hash_at = _align(image, 8)
    image += _hash_table([symbol.name for symbol in ordered])
    strings_at = _align(image, 8)
    image += strings.data
    definitions_at = _align(image, 8)
    image += definitions
    version_indexes = [0] + [
        versions.index(symbol.version) + 2 if symbol.version else 1 for symbol in ordered
    ]
    version_indexes_at = _align(image, 8)
    image += struct.pack(f"<{len(version_indexes)}H", *version_indexes)
    symbols_at = _align(image, 8)
    dynamic_tag_count = 10
    writable_at = symbols_at + 24 * (len(ordered) + 1)
    writable_at += -writable_at % PAGE_BYTES
    data_at = writable_at + 16 * dynamic_tag_count

    image += bytes(24)
    for symbol, name_offset in zip(ordered, name_offsets):
        value = data_at if symbol.is_data else text_at if symbol.returns_text else code_at
        kind, size = (1, DATA_BYTES) if symbol.is_data else (2, 8)
        # Global binding; any section index other than 0 says "defined here".
        image += struct.pack("<IBBHQQ", name_offset, 0x10 | kind, 0, 1, value, size)
    readable_bytes = len(image)
    _align(image, PAGE_BYTES)

    dynamic = [
        (14, soname_offset),  # DT_SONAME
        (4, hash_at),  # DT_HASH
        (5, strings_at),  # DT_STRTAB
        (10, len(strings.data)),  # DT_STRSZ
        (6, symbols_at),  # DT_SYMTAB
        (11, 24),  # DT_SYMENT
        (0x6FFFFFF0, version_indexes_at),  # DT_VERSYM
        (0x6FFFFFFC, definitions_at),  # DT_VERDEF
        (0x6FFFFFFD, len(versions) + 1),  # DT_VERDEFNUM
        (0, 0),
    ]
    assert len(dynamic) == dynamic_tag_count
    for tag, value in dynamic:
        image += struct.pack("<QQ", tag, value)
    image += bytes(DATA_BYTES)
    _write_headers(image, machine, readable_bytes, writable_at, 16 * dynamic_tag_count)
    return bytes(image)


def _write_headers(
    image: bytearray, machine: int, readable_bytes: int, writable_at: int, dynamic_bytes: int
) -> None:
    load, dynamic, stack = 1, 2, 0x6474E551
    read_execute, read_write = 5, 6
    writable_bytes = len(image) - writable_at
    segments = [
        (load, read_execute, 0, readable_bytes, PAGE_BYTES),
        (load, read_write, writable_at, writable_bytes, PAGE_BYTES),
        (dynamic, read_write, writable_at, dynamic_bytes, 8),
        # Without this header the loader asks for an executable stack.
        (stack, read_write, 0, 0, 16),
    ]
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    struct.pack_into(
        "<16sHHIQQQIHHHHHH",
        image, 0, identity, 3, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0,
    )  # fmt: skip
    for index, (kind, flags, at, size, alignment) in enumerate(segments):
        struct.pack_into(
            "<IIQQQQQQ", image, 64 + index * 56, kind, flags, at, at, at, size, size, alignment
        )
