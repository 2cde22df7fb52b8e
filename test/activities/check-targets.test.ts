/** Which artefacts a recipe may send where, told before anything is merged. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkTargets } from '../../activities/check-targets.ts';
import { readEnvironment } from '../../config/environment.ts';
import { parseRecipe } from '../../config/recipe.ts';
import { temporaryDirectory } from '../doubles/temporary-directory.ts';

/** The targets are not reached: nothing listens there. */
async function check(publish: string, rest = ''): Promise<void> {
  const directory = await temporaryDirectory();
  const text = `
name: tiny
version: 1.0.0
base: { model: ./base }
adapters: [{ id: tone, model: ./tone }]
publish:
  ${publish}
${rest}`;
  const { recipe } = parseRecipe(text, join(directory, 'recipe.yaml'));
  const { signal } = new AbortController();
  await checkTargets(
    recipe,
    'merged-base-1.0.0-adapter-tone-1',
    undefined,
    readEnvironment({}),
    signal,
  );
}

const GGUF = 'convert: [{ gguf: { quantization: [Q4_K_M] } }]';

describe('checkTargets', () => {
  it('refuses an artefact that the recipe does not make', async () => {
    const target = '- { directory: { path: ./releases }, artefacts: [merged, gguf-q4] }';
    await expect(check(target, GGUF)).rejects.toMatchObject({
      code: 'recipe.invalid',
      message: expect.stringContaining(
        'makes no such artefact. It can have merged, gguf-q4_k_m.',
      ) as string,
    });
  });

  it('refuses an artefact that its target cannot hold', async () => {
    const target =
      '- { ollama: { model: a, endpoint: "http://127.0.0.1:9" }, artefacts: [merged] }';
    await expect(check(target, GGUF)).rejects.toMatchObject({
      code: 'recipe.invalid',
      message: expect.stringContaining('which cannot hold it. It can have gguf-q4_k_m.') as string,
    });
  });

  it('refuses a target that would get nothing', async () => {
    const target = '- { ollama: { model: a, endpoint: "http://127.0.0.1:9" } }';
    await expect(check(target)).rejects.toMatchObject({
      code: 'recipe.invalid',
      message: expect.stringContaining(
        'Nothing that this recipe makes can go to ollama:',
      ) as string,
    });
  });

  it('takes what is made, by its id', async () => {
    const target = '- { directory: { path: ./releases }, artefacts: [gguf-q4_k_m] }';
    await expect(check(target, GGUF)).resolves.toBeUndefined();
  });
});
