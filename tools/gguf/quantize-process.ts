/**
 * A process of its own around `llama_model_quantize`: a library that aborts takes its process with
 * it, and has no way to be told to stop. What it says on the way goes to standard error.
 *
 * Arguments: one JSON text with `QuantizeRequest`.
 */
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { libraryFile } from '../llama-cpp/library-file.ts';
import {
  QUANTIZE_PARAMETERS,
  QUANTIZE_PARAMETERS_BYTES,
} from '../llama-cpp/quantize-parameters.ts';
import { type ImatrixData, readImatrix } from './read-imatrix.ts';

export interface QuantizeRequest {
  /** Module directory with `koffi`. */
  readonly modules: string;
  /** Directory of the shared libraries. */
  readonly libraries: string;
  readonly source: string;
  readonly target: string;
  readonly ftype: number;
  readonly imatrix?: string | undefined;
  readonly threads?: number | undefined;
}

/** `sizeof(llama_model_kv_override)` of llama.h, release v0.4.0. */
const OVERRIDE_BYTES = 264;
/** Other releases have other structs; their memory is not for us to write to. */
const VERSION = '0.4.0';
/** Of `llama_model_kv_override_type`. */
const INTEGER_TAG = 0;
const TEXT_TAG = 3;
const KEY_BYTES = 128;
const TEXT_BYTES_MAX = 127;

async function main(request: QuantizeRequest): Promise<void> {
  const koffi = createRequire(join(request.modules, 'koffi'))('koffi');
  const parameters = koffi.struct('llama_model_quantize_params', QUANTIZE_PARAMETERS);
  if (koffi.sizeof(parameters) !== QUANTIZE_PARAMETERS_BYTES)
    throw new Error('the struct has another size');
  const ggml = koffi.load(libraryFile(request.libraries, 'ggml'));
  const llama = koffi.load(libraryFile(request.libraries, 'llama'));
  const version = String(llama.func('const char *llama_version()')());
  if (!version.startsWith(VERSION)) throw new Error(`the library is ${version}, not ${VERSION}`);

  ggml.func('void ggml_backend_load_all_from_path(const char *path)')(request.libraries);
  llama.func('void llama_backend_init()')();
  const defaults = llama.func(
    'llama_model_quantize_params llama_model_quantize_default_params()',
  )();
  const { imatrix } = request;
  const weights = imatrix === undefined ? {} : pointers(koffi, imatrix, await readImatrix(imatrix));
  const quantize = llama.func(
    'uint32_t llama_model_quantize(const char *source, const char *target, const llama_model_quantize_params *params)',
  );
  const settings = {
    ...defaults,
    ...weights,
    ftype: request.ftype,
    nthread: request.threads ?? 0,
  };
  if (quantize(request.source, request.target, settings) !== 0) process.exitCode = 1;
}

type Koffi = ReturnType<NodeJS.Require>;

/** The importance matrix, and what llama-quantize writes of it into the file. */
function pointers(koffi: Koffi, path: string, data: ImatrixData): Record<string, unknown> {
  const entry = koffi.struct('llama_model_imatrix_data', {
    name: 'const char *',
    data: 'float *',
    size: 'size_t',
  });
  const entries = [...data.entries];
  const array = koffi.alloc(entry, entries.length + 1);
  koffi.encode(array, koffi.array(entry, entries.length + 1), [
    ...entries.map(([name, values]) => ({
      name: text(koffi, name),
      data: floats(koffi, values),
      size: values.length,
    })),
    { name: null, data: null, size: 0 },
  ]);
  const overrides = Buffer.concat([
    override('quantize.imatrix.file', basename(path)),
    ...(data.dataset === undefined ? [] : [override('quantize.imatrix.dataset', data.dataset)]),
    override('quantize.imatrix.entries_count', entries.length),
    ...(data.chunks > 0 ? [override('quantize.imatrix.chunks_count', data.chunks)] : []),
    Buffer.alloc(OVERRIDE_BYTES),
  ]);
  return { imatrix: array, kv_overrides: bytes(koffi, overrides) };
}

/** A `llama_model_kv_override`. */
function override(key: string, value: string | number): Buffer {
  const buffer = Buffer.alloc(OVERRIDE_BYTES);
  const valueOffset = OVERRIDE_BYTES - KEY_BYTES;
  buffer.writeInt32LE(typeof value === 'string' ? TEXT_TAG : INTEGER_TAG, 0);
  buffer.write(key, 4);
  if (typeof value === 'number') buffer.writeBigInt64LE(BigInt(value), valueOffset);
  else Buffer.from(value).copy(buffer, valueOffset, 0, TEXT_BYTES_MAX);
  return buffer;
}

/** Memory that is never freed: the process ends with the work. */
function bytes(koffi: Koffi, content: Uint8Array): unknown {
  const memory = koffi.alloc('uint8_t', content.length);
  koffi.encode(memory, koffi.array('uint8_t', content.length), content);
  return memory;
}

function floats(koffi: Koffi, values: Float32Array): unknown {
  const memory = koffi.alloc('float', values.length);
  koffi.encode(memory, koffi.array('float', values.length), values);
  return memory;
}

function text(koffi: Koffi, value: string): unknown {
  return bytes(koffi, Buffer.from(`${value}\0`));
}

main(JSON.parse(process.argv[2] ?? '')).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
