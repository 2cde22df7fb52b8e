/**
 * Records what the reference implementation makes of mutated files, so that the ordinary test run
 * needs no Python:
 *
 *     node test/engine/safetensors/record-rust-verdicts.ts .oracle/bin/python
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { mutatedFiles } from './mutated-headers.ts';
import { VERDICT_COUNT, VERDICT_SEED, type Verdicts } from './rust-verdicts.ts';

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const python = process.argv[2];
if (python === undefined) throw new Error('usage: record-rust-verdicts.ts PYTHON');

const hash = createHash('sha256');
const parts: Uint8Array[] = [];
for (const file of mutatedFiles(VERDICT_SEED, VERDICT_COUNT)) {
  hash.update(file);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, file.length, true);
  parts.push(length, file);
}
const answer = execFileSync(python, [here('./record_rust_verdicts.py')], {
  input: Buffer.concat(parts),
  encoding: 'utf8',
});
const version = execFileSync(python, ['-c', 'import safetensors; print(safetensors.__version__)'], {
  encoding: 'utf8',
});
const verdicts: Verdicts = {
  safetensors: version.trim(),
  files: hash.digest('hex'),
  accepted: Object.fromEntries(
    answer
      .trim()
      .split('\n')
      .flatMap((line, index) => (line === '-' ? [] : [[String(index), line]])),
  ),
};
writeFileSync(here('./rust-verdicts.json'), `${JSON.stringify(verdicts, null, 1)}\n`);
