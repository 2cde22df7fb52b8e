import { createSecretKey, type KeyObject } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';

/** AES-256. */
const KEY_BYTES = 32;

/** Room for hundreds of keys; anything larger is another file. */
const FILE_BYTES_MAX = 64 * 1024;

const OTHERS_MAY_READ = 0o004;

/** What encrypts the payloads of a server, and what reads them again. */
export interface PayloadKeys {
  /** Encrypts; absent: payloads are stored as they are. */
  readonly current?: { readonly id: string; readonly key: KeyObject };
  /** By their ids; all decrypt. */
  readonly all: ReadonlyMap<string, KeyObject>;
  /** Where they come from. */
  readonly file?: string;
  /** For people. */
  readonly warnings: readonly string[];
}

/** Nothing is encrypted, and nothing encrypted can be read. */
const NO_PAYLOAD_KEYS: PayloadKeys = { all: new Map(), warnings: [] };

/** The keys of this environment. @throws WeldlineError `config.invalid` */
export function payloadKeysOf({ payloadKeysFile }: Environment): PayloadKeys {
  return payloadKeysFile === undefined ? NO_PAYLOAD_KEYS : readPayloadKeys(payloadKeysFile);
}

/**
 * Reads a file of keys: a line `<id> <base64 of 32 bytes>` for each, the one that encrypts first.
 * Empty lines and those that begin with # are nothing.
 * @throws WeldlineError `config.invalid`, which names the line and shows nothing of it
 */
function readPayloadKeys(file: string): PayloadKeys {
  const { text, mode } = readKeyFile(file);
  const all = new Map<string, KeyObject>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const words = line.trim();
    if (words === '' || words.startsWith('#')) continue;
    const { id, key } = parseLine(words, `Line ${index + 1} of ${file}`);
    if (all.has(id)) throw invalid(`Line ${index + 1} of ${file} names ${id} again.`);
    all.set(id, key);
  }
  const [first] = all;
  if (first === undefined) throw invalid(`The file of payload keys ${file} holds no key.`);
  return {
    current: { id: first[0], key: first[1] },
    all,
    file,
    warnings:
      (mode & OTHERS_MAY_READ) === 0
        ? []
        : [`Everybody on this machine can read the payload keys ${file}: chmod 600 it.`],
  };
}

function parseLine(line: string, where: string): { id: string; key: KeyObject } {
  const [id = '', base64 = '', ...rest] = line.split(/\s+/);
  const bytes = Buffer.from(base64, 'base64');
  // What is no base64 would be left out without a word.
  const isBase64 = bytes.toString('base64') === base64;
  if (rest.length > 0 || !/^[\w.-]{1,64}$/.test(id) || !isBase64 || bytes.length !== KEY_BYTES) {
    throw invalid(`${where} is no key.`);
  }
  return { id, key: createSecretKey(bytes) };
}

function readKeyFile(file: string): { text: string; mode: number } {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, 'r');
    const status = fstatSync(descriptor);
    if (!status.isFile() || status.size > FILE_BYTES_MAX) {
      throw invalid(`${file} is no file of payload keys.`);
    }
    return { text: readFileSync(descriptor, 'utf8'), mode: status.mode };
  } catch (error) {
    if (error instanceof WeldlineError) throw error;
    throw invalid(`The payload keys ${file} cannot be read (${(error as Error).message}).`, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'config.invalid',
    `${problem} WELDLINE_PAYLOAD_KEYS names a file with one key a line: a name of letters, digits, ` +
      'dots and dashes, a space, and 32 random bytes in base64 (openssl rand -base64 32).',
    { ...(cause === undefined ? {} : { cause }), details: { variable: 'WELDLINE_PAYLOAD_KEYS' } },
  );
}
