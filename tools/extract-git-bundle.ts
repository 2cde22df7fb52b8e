import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { inflateSync } from 'node:zlib';
import { WeldlineError } from '../engine/errors.ts';

/**
 * Reads git bundles of one commit without git, which a machine that runs weldline need not have.
 * Formats: gitformat-bundle (version 2) and gitformat-pack (version 2) in git's documentation.
 */

/** Numbers of the pack format. */
const KINDS: Readonly<Record<number, string>> = { 1: 'commit', 2: 'tree', 3: 'blob', 4: 'tag' };
const OFFSET_DELTA = 6;
/** A tenth of this is in llama.cpp's; more is damage, and would fill the memory. */
const OBJECTS_MAX = 50_000;
const OBJECT_BYTES_MAX = 256 * 1024 * 1024;
const DIGEST_BYTES = 20;

interface PackedObject {
  readonly kind: string;
  readonly content: Buffer;
}

export interface ExtractOptions {
  /** The bundle file. */
  bundle: string;
  /** Object id of the commit: every file is checked to belong to it. */
  commit: string;
  /** Receives the files. */
  directory: string;
  /** Files and directories to extract, from the root of the tree: `LICENSE`, `ggml/include`. */
  paths: readonly string[];
}

/**
 * Extracts files of a commit. Object ids are the SHA-1 of what they name, down from the commit's, so
 * what is written is that commit's or nothing is. Symbolic links and submodules are left out.
 *
 * @throws WeldlineError `tool.install-failed` for a bundle that is damaged or holds another commit,
 *   and for a path that the commit does not have
 */
export async function extractGitBundle(options: ExtractOptions): Promise<void> {
  const { bundle, commit, directory, paths } = options;
  try {
    const objects = readObjects(await readFile(bundle));
    const tree = /^tree ([0-9a-f]{40})$/m.exec(
      contentOf(objects, commit, 'commit').toString(),
    )?.[1];
    const files = [...listFiles(objects, tree ?? '', '', paths)];
    for (const path of paths) {
      if (!files.some((file) => file.path === path || file.path.startsWith(`${path}/`))) {
        throw new RangeError(`the commit has no ${path}`);
      }
    }
    for (const { path, id } of files) {
      const target = join(directory, path);
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, contentOf(objects, id, 'blob'));
    }
  } catch (error) {
    // What is thrown for reading beyond the end, a bad stream and a wrong reference.
    const { code } = error as { code?: unknown };
    if (!(error instanceof RangeError) && !String(code).startsWith('Z_')) throw error;
    throw new WeldlineError(
      'tool.install-failed',
      `${bundle} is not the git bundle of commit ${commit} (${(error as Error).message}).`,
      { cause: error },
    );
  }
}

function contentOf(objects: ReadonlyMap<string, PackedObject>, id: string, kind: string): Buffer {
  const object = objects.get(id);
  if (object?.kind !== kind) throw new RangeError(`it has no ${kind} ${id}`);
  return object.content;
}

function* listFiles(
  objects: ReadonlyMap<string, PackedObject>,
  tree: string,
  folder: string,
  wanted: readonly string[],
): Generator<{ path: string; id: string }> {
  const content = contentOf(objects, tree, 'tree');
  // Entries: mode in octal, space, name, zero byte, 20 bytes of object id.
  for (let at = 0; at < content.length; ) {
    const end = content.indexOf(0, at);
    const [mode, ...rest] = content.toString('utf8', at, end).split(' ');
    const name = rest.join(' ');
    const id = content.toString('hex', end + 1, end + 1 + DIGEST_BYTES);
    at = end + 1 + DIGEST_BYTES;
    if (end < 0 || name === '' || name === '..' || name === '.' || name.includes('/')) {
      throw new RangeError('a tree is damaged');
    }
    const path = `${folder}${name}`;
    const isWanted = wanted.some((each) => path === each || path.startsWith(`${each}/`));
    if (mode === '40000') {
      const leadsThere = wanted.some((each) => each.startsWith(`${path}/`));
      if (isWanted || leadsThere) yield* listFiles(objects, id, `${path}/`, wanted);
    } else if (isWanted && mode?.startsWith('100')) {
      yield { path, id };
    }
  }
}

/** All objects by their id. */
function readObjects(bundle: Buffer): ReadonlyMap<string, PackedObject> {
  const header = '# v2 git bundle\n';
  const start = bundle.indexOf('\n\n') + 2;
  const pack = bundle.subarray(start);
  if (bundle.toString('latin1', 0, header.length) !== header || start < 2) {
    throw new RangeError('it does not begin as one');
  }
  const count = pack.readUInt32BE(8);
  if (pack.toString('latin1', 0, 4) !== 'PACK' || pack.readUInt32BE(4) !== 2) {
    throw new RangeError('it holds no pack of version 2');
  }
  if (count > OBJECTS_MAX) throw new RangeError(`it claims to hold ${count} objects`);

  const byOffset = new Map<number, PackedObject>();
  const byId = new Map<string, PackedObject>();
  let offset = 12;
  for (let i = 0; i < count; i++) {
    const { object, end } = readObject(pack, offset, byOffset);
    byOffset.set(offset, object);
    const head = `${object.kind} ${object.content.length}\0`;
    byId.set(createHash('sha1').update(head).update(object.content).digest('hex'), object);
    offset = end;
  }
  return byId;
}

function readObject(
  pack: Buffer,
  offset: number,
  earlier: ReadonlyMap<number, PackedObject>,
): { object: PackedObject; end: number } {
  let at = offset;
  let byte = pack.readUInt8(at++);
  const type = (byte >> 4) & 7;
  let size = byte & 15;
  for (let factor = 16; byte & 128; factor *= 128) {
    byte = pack.readUInt8(at++);
    size += (byte & 127) * factor;
  }
  if (size > OBJECT_BYTES_MAX) throw new RangeError(`it claims an object of ${size} bytes`);

  let base: PackedObject | undefined;
  if (type === OFFSET_DELTA) {
    byte = pack.readUInt8(at++);
    let distance = byte & 127;
    while (byte & 128) {
      byte = pack.readUInt8(at++);
      distance = (distance + 1) * 128 + (byte & 127);
    }
    base = earlier.get(offset - distance);
  }
  const kind = base?.kind ?? KINDS[type];
  if (kind === undefined) throw new RangeError(`it has an object of type ${type}`);
  const { content, length } = inflate(pack.subarray(at), size);
  const whole = base === undefined ? content : applyDelta(base.content, content);
  return { object: { kind, content: whole }, end: at + length };
}

/** Inflates a stream of which only the start is known. */
function inflate(stream: Buffer, size: number): { content: Buffer; length: number } {
  // With `info` there is an object; the type declarations do not know it.
  const { buffer, engine } = inflateSync(stream, {
    info: true,
    maxOutputLength: Math.max(size, 1),
  }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
  if (buffer.length !== size) throw new RangeError('an object has another size than it says');
  return { content: buffer, length: engine.bytesWritten };
}

/** Instructions of a delta: copy a range of the base, or insert bytes that follow. */
function applyDelta(base: Buffer, delta: Buffer): Buffer {
  let at = 0;
  const number = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = delta.readUInt8(at++);
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const baseSize = number();
  const size = number();
  if (baseSize !== base.length) throw new RangeError('a delta is for another object');
  const parts: Buffer[] = [];
  while (at < delta.length) {
    const instruction = delta.readUInt8(at++);
    if (instruction < 128) {
      parts.push(delta.subarray(at, at + instruction));
      at += instruction;
      continue;
    }
    let from = 0;
    let length = 0;
    for (let i = 0; i < 4; i++) {
      if (instruction & (1 << i)) from += delta.readUInt8(at++) * 256 ** i;
    }
    for (let i = 0; i < 3; i++) {
      if (instruction & (16 << i)) length += delta.readUInt8(at++) * 256 ** i;
    }
    parts.push(base.subarray(from, from + (length || 0x10000)));
  }
  const content = Buffer.concat(parts);
  if (content.length !== size) throw new RangeError('a delta gives another size than it says');
  return content;
}
