/**
 * What weldline uses of llama.cpp, wherever it comes from. Its parts come apart: the npm packages
 * have libraries and the converter's source, a user's own build has programs.
 */
export interface LlamaCpp {
  readonly origin: 'setting' | 'path' | 'installed';
  /** Where it is: the directory that was set, found or installed. */
  readonly directory: string;
  /** What decides the bytes it makes: the release and commit, `v0.4.0 (80fb11ac)`. */
  readonly version: string;
  /** Directory with `convert_hf_to_gguf.py`, `convert_lora_to_gguf.py`, `conversion/`, `gguf-py/`. */
  readonly converter: string;
  /** Shared libraries of the pinned release, for FFI; absent in a user's own. */
  readonly libraries?: string;
  /** A module directory from which `node-llama-cpp` and `koffi` resolve; absent in a user's own. */
  readonly modules?: string;
  /** Programs by name (`llama-quantize`, `llama-imatrix`, …) with their paths, those that there are. */
  readonly programs: Readonly<Record<string, string>>;
}
