import { readFile } from 'node:fs/promises';
import { toReadError } from '../../engine/disk-errors.ts';
import { WeldlineError } from '../../engine/errors.ts';
import type { Artefact, ArtefactFile } from '../publisher.ts';
import { MODELFILE } from './modelfile.ts';
import { type ModelSettings, readModelfile } from './modelfile-text.ts';

/**
 * The one file of an artefact that Ollama takes.
 * @throws WeldlineError `publish.rejected` where there is not just one GGUF
 */
export function weightsOf({ files }: Artefact): ArtefactFile {
  const ggufs = files.filter(({ path }) => /^[^/]+\.gguf$/.test(path));
  const [weights] = ggufs;
  if (weights !== undefined && ggufs.length === 1) return weights;
  throw new WeldlineError(
    'publish.rejected',
    `Ollama runs a GGUF of one file, and this has ${ggufs.length}. Leave split out of the recipe, or ` +
      'this artefact out of the target (artefacts).',
  );
}

/** What the Modelfile of an artefact says; nothing without one. */
export async function readSettings({ files }: Artefact): Promise<ModelSettings> {
  const file = files.find(({ path }) => path === MODELFILE);
  if (file === undefined) return { parameters: {} };
  const text = await readFile(file.source, 'utf8').catch((error: unknown) => {
    throw toReadError(error, file.source);
  });
  return readModelfile(text, file.path);
}
