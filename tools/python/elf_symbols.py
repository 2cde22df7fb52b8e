"""Reads what a 64-bit little-endian ELF shared library asks of, and offers to, the loader.

Only the three tables that matter for loading are read (dynamic section, dynamic symbols,
symbol versions), with the standard library alone, because a machine may have
no binutils. Format: System V ABI, chapter 5, and the GNU symbol versioning extension.
"""

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

SECTION_DYNAMIC = 6
SECTION_DYNAMIC_SYMBOLS = 11
SECTION_VERSION_NEEDS = 0x6FFFFFFE
SECTION_SYMBOL_VERSIONS = 0x6FFFFFFF

TAG_NEEDED = 1
SYMBOL_TYPE_OBJECT = 1
BIND_WEAK = 2


@dataclass(frozen=True)
class Undefined:
    """A symbol that another library has to define."""

    name: str
    is_data: bool
    is_weak: bool
    # The file and the version node that must define it, when the symbol is versioned.
    library: str | None
    version: str | None


@dataclass
class LibrarySymbols:
    machine: int
    needed: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    undefined: list[Undefined] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    kind: int
    offset: int
    size: int
    link: int


def read_library(path: Path) -> LibrarySymbols:
    """Raises ValueError when the file is not a 64-bit little-endian ELF file."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: not a 64-bit little-endian ELF file")
        sections = _read_sections(data)
        symbols = LibrarySymbols(machine=struct.unpack_from("<H", data, 18)[0])
        symbols.needed = _read_needed(data, sections)
        _read_symbols(data, sections, symbols)
        return symbols


def _read_sections(data) -> list[Section]:
    table_offset = struct.unpack_from("<Q", data, 40)[0]
    entry_size, count = struct.unpack_from("<HH", data, 58)
    sections = []
    for index in range(count):
        _, kind, _, _, offset, size, link = struct.unpack_from(
            "<IIQQQQI", data, table_offset + index * entry_size
        )
        sections.append(Section(kind, offset, size, link))
    return sections


def _find(sections: list[Section], kind: int) -> Section | None:
    return next((section for section in sections if section.kind == kind), None)


def _bytes(data, section: Section) -> bytes:
    return data[section.offset : section.offset + section.size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def _read_needed(data, sections: list[Section]) -> list[str]:
    dynamic = _find(sections, SECTION_DYNAMIC)
    if dynamic is None:
        return []
    strings = _bytes(data, sections[dynamic.link])
    entries = struct.iter_unpack("<QQ", _bytes(data, dynamic))
    return [_string(strings, value) for tag, value in entries if tag == TAG_NEEDED]


def _read_version_needs(data, sections: list[Section]) -> dict[int, tuple[str, str]]:
    """Version index, as the symbols use it, to (library, version name)."""
    section = _find(sections, SECTION_VERSION_NEEDS)
    if section is None:
        return {}
    strings, table = _bytes(data, sections[section.link]), _bytes(data, section)
    needs, offset = {}, 0
    while True:
        _, count, file, first, next_file = struct.unpack_from("<HHIII", table, offset)
        entry = offset + first
        for _ in range(count):
            _, _, index, name, next_entry = struct.unpack_from("<IHHII", table, entry)
            needs[index] = (_string(strings, file), _string(strings, name))
            entry += next_entry
        if next_file == 0:
            return needs
        offset += next_file


def _read_symbols(data, sections: list[Section], into: LibrarySymbols) -> None:
    table = _find(sections, SECTION_DYNAMIC_SYMBOLS)
    if table is None:
        return
    strings = _bytes(data, sections[table.link])
    versions = _find(sections, SECTION_SYMBOL_VERSIONS)
    indexes = struct.unpack(f"<{versions.size // 2}H", _bytes(data, versions)) if versions else None
    needs = _read_version_needs(data, sections)
    entries = struct.iter_unpack("<IBBHQQ", _bytes(data, table))
    for position, (name, info, _, section_index, _, _) in enumerate(entries):
        if name == 0:
            continue
        if section_index != 0:
            into.defined.add(_string(strings, name))
            continue
        # Bit 15 of a version index marks a hidden symbol and is no part of the number.
        version_index = indexes[position] & 0x7FFF if indexes else 1
        library, version = needs.get(version_index, (None, None))
        into.undefined.append(
            Undefined(
                name=_string(strings, name),
                is_data=(info & 15) == SYMBOL_TYPE_OBJECT,
                is_weak=(info >> 4) == BIND_WEAK,
                library=library,
                version=version,
            )
        )
