/**
 * A program: loads the libraries of llama.cpp as those who quantize and evaluate with them will, and
 * prints what they say of themselves as one line of JSON. It is a process of its own because a
 * library that does not fit can end the process that loads it.
 *
 *     node check-llama-cpp.ts MODULES LIBRARIES
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { argv, stdout } from 'node:process';
import { libraryFile } from './llama-cpp/library-file.ts';
import { QUANTIZE_PARAMETERS } from './llama-cpp/quantize-parameters.ts';

/** What is used of koffi, which is installed with llama.cpp. */
interface Koffi {
  load(path: string): { func(declaration: string): (...args: unknown[]) => unknown };
  struct(name: string, members: Readonly<Record<string, string>>): unknown;
  sizeof(type: string): number;
}

const [, , modules = '', libraries = ''] = argv;
const koffi = createRequire(join(modules, 'koffi', 'package.json'))('koffi') as Koffi;

const ggml = koffi.load(libraryFile(libraries, 'ggml'));
const llama = koffi.load(libraryFile(libraries, 'llama'));
ggml.func('void ggml_backend_load_all_from_path(str directory)')(libraries);
koffi.struct('llama_model_quantize_params', QUANTIZE_PARAMETERS);
const version = llama.func('str llama_version()')();
const defaults = llama.func('llama_model_quantize_params llama_model_quantize_default_params()')();
const devices = ggml.func('size_t ggml_backend_dev_count()')();
const { ftype, max_buf_size } = defaults as Record<string, unknown>;
const size = koffi.sizeof('llama_model_quantize_params');
stdout.write(`${JSON.stringify({ version, devices, size, ftype, bufferBytes: max_buf_size })}\n`);
