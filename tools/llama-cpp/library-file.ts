import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The path of one of llama.cpp's shared libraries, whose names have the release and, on macOS, the kind
 * of build in them: `libllama.v0.4.0.so`, `libllama.metal.v0.4.0.dylib`.
 *
 * @param name without `lib`: `llama`, `ggml`, `ggml-base`
 * @throws Error if the directory has none
 */
export function libraryFile(directory: string, name: string): string {
  const pattern = new RegExp(`^lib${name}(\\.metal)?(\\.v[\\d.]+)?\\.(so|dylib)$`);
  const file = readdirSync(directory).find((each) => pattern.test(each));
  if (file === undefined) throw new Error(`There is no library of ${name} in ${directory}.`);
  return join(directory, file);
}
