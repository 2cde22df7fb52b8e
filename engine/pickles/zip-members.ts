import type { ByteSource } from '../byte-source.ts';

/** A member of a zip archive that is stored as it is. */
export interface ZipMember {
  /** Absolute byte offset of its content in the archive. */
  readonly offset: number;
  readonly size: number;
}

/** What is wrong with an archive, to be told with its name and what to do. */
export class ZipProblem extends Error {
  /** `damaged`: it is not what was written; `unsupported`: it is, and is not read here. */
  readonly kind: 'damaged' | 'unsupported';

  constructor(kind: ZipProblem['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

const END_SIGNATURE = 0x06054b50;
const ENTRY_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const END_BYTES = 22;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;

/** torch writes no comment; others may, and the record of the end lies before it. */
const COMMENT_BYTES_MAX = 65_535;

/** An adapter has some thousand tensors, each a member. */
const DIRECTORY_BYTES_MAX = 64 * 1024 * 1024;

/** Encrypted, or patched, or with its header encrypted. */
const UNREADABLE_FLAGS = 0x0001 | 0x0020 | 0x0040 | 0x2000;

interface Entry {
  readonly name: string;
  readonly localOffset: number;
  readonly size: number;
}

/**
 * Lists the members of a zip archive by its central directory, and finds where each one's bytes are.
 * Only what `torch.save` writes is taken: members that are stored, once each, one behind the other;
 * 32-bit sizes. Format: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
 *
 * @throws ZipProblem
 */
export async function readZipMembers(source: ByteSource): Promise<ReadonlyMap<string, ZipMember>> {
  const { directoryOffset, directorySize, count } = await readEnd(source);
  const directory = await source.read(directoryOffset, directorySize);
  const entries = parseDirectory(directory, count);
  const members = new Map<string, ZipMember>();
  let free = 0;
  for (const entry of entries.toSorted((a, b) => a.localOffset - b.localOffset)) {
    if (members.has(entry.name)) throw damaged(`it has ${quote(entry.name)} twice`);
    if (entry.localOffset < free) throw damaged(`${quote(entry.name)} overlaps what is before it`);
    const offset = await contentOffset(source, entry, directoryOffset);
    free = offset + entry.size;
    if (free > directoryOffset) throw damaged(`${quote(entry.name)} ends outside of the archive`);
    members.set(entry.name, { offset, size: entry.size });
  }
  return members;
}

async function readEnd(
  source: ByteSource,
): Promise<{ directoryOffset: number; directorySize: number; count: number }> {
  const length = Math.min(source.size, END_BYTES + COMMENT_BYTES_MAX);
  const tail = await source.read(source.size - length, length);
  const view = viewOf(tail);
  for (let at = length - END_BYTES; at >= 0; at--) {
    if (view.getUint32(at, true) !== END_SIGNATURE) continue;
    if (at + END_BYTES + view.getUint16(at + 20, true) !== length) continue;
    const count = view.getUint16(at + 10, true);
    const directorySize = view.getUint32(at + 12, true);
    const directoryOffset = view.getUint32(at + 16, true);
    if (count === 0xffff || directorySize === 0xffffffff || directoryOffset === 0xffffffff) {
      throw new ZipProblem('unsupported', 'it has 64-bit sizes, as archives above 4 GB have');
    }
    if (view.getUint32(at + 4, true) !== 0 || view.getUint16(at + 8, true) !== count) {
      throw damaged('it is one part of several');
    }
    if (
      directoryOffset + directorySize > source.size - length + at ||
      directorySize > DIRECTORY_BYTES_MAX
    ) {
      throw damaged('its directory lies outside of it');
    }
    return { directoryOffset, directorySize, count };
  }
  throw damaged('its end is missing: it was not written or downloaded whole');
}

function parseDirectory(directory: Uint8Array, count: number): Entry[] {
  const view = viewOf(directory);
  const entries: Entry[] = [];
  let at = 0;
  for (let index = 0; index < count; index++) {
    if (at + ENTRY_BYTES > directory.length || view.getUint32(at, true) !== ENTRY_SIGNATURE) {
      throw damaged('its directory is not what its end says');
    }
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const commentLength = view.getUint16(at + 32, true);
    const end = at + ENTRY_BYTES + nameLength + extraLength + commentLength;
    if (end > directory.length) throw damaged('its directory is not what its end says');
    const name = decode(directory.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + nameLength));
    const stored = view.getUint32(at + 20, true);
    const size = view.getUint32(at + 24, true);
    const localOffset = view.getUint32(at + 42, true);
    if ((view.getUint16(at + 8, true) & UNREADABLE_FLAGS) !== 0) {
      throw new ZipProblem('unsupported', `${quote(name)} is encrypted`);
    }
    if (view.getUint16(at + 10, true) !== 0 || stored !== size) {
      throw new ZipProblem('unsupported', `${quote(name)} is compressed`);
    }
    if (size === 0xffffffff || localOffset === 0xffffffff) {
      throw new ZipProblem('unsupported', 'it has 64-bit sizes, as archives above 4 GB have');
    }
    entries.push({ name, localOffset, size });
    at = end;
  }
  if (at !== directory.length) throw damaged('its directory is not what its end says');
  return entries;
}

/** The local header has a name and padding of its own, so it says where the content begins. */
async function contentOffset(
  source: ByteSource,
  { name, localOffset }: Entry,
  directoryOffset: number,
): Promise<number> {
  if (localOffset + LOCAL_BYTES > directoryOffset) {
    throw damaged(`${quote(name)} begins outside of the archive`);
  }
  const header = viewOf(await source.read(localOffset, LOCAL_BYTES));
  const nameLength = header.getUint16(26, true);
  const begin = localOffset + LOCAL_BYTES;
  const isHeader = header.getUint32(0, true) === LOCAL_SIGNATURE && header.getUint16(8, true) === 0;
  if (!isHeader || begin + nameLength > directoryOffset) {
    throw damaged(`${quote(name)} is not where its directory says`);
  }
  if (decode(await source.read(begin, nameLength)) !== name) {
    throw damaged(`${quote(name)} has two names`);
  }
  return begin + nameLength + header.getUint16(28, true);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decode(name: Uint8Array): string {
  return new TextDecoder('latin1').decode(name);
}

function quote(name: string): string {
  return JSON.stringify(name.slice(0, 100));
}

function damaged(message: string): ZipProblem {
  return new ZipProblem('damaged', message);
}
