import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { modelfileFor } from '../../activities/modelfile.ts';
import { testArtefact, weightsOf } from '../harness/test-artefact.ts';

const TINY = fileURLToPath(new URL('../../examples/tiny/base', import.meta.url));

describe('the Modelfile of a conversion', () => {
  let directory: string;
  let conversion: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weldline-modelfile-'));
    const { files } = await testArtefact(directory, { release: 'r', part: 'gguf-q4_k_m' });
    const weights = files.find(({ path }) => path === weightsOf('gguf'));
    conversion = dirname(weights?.source ?? '');
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('is made of the GGUF, and of how the checkpoint is asked', async () => {
    const { text, warnings } = await modelfileFor(conversion, TINY, 'apache-2.0');
    expect(warnings).toEqual([]);
    expect(text).toContain('FROM ./model-q4_k_m.gguf\nTEMPLATE """{{ "<s>" }}');
    expect(text).toContain('{{ "user: " }}{{ .Content }}{{ "\\n" }}');
    expect(text).toMatch(/PARAMETER temperature 0\nLICENSE """apache-2.0"""\n$/);
  });

  it("has no template where the checkpoint's own is broken, and says so", async () => {
    const checkpoint = join(directory, 'checkpoint');
    await cp(TINY, checkpoint, { recursive: true });
    const make = () => modelfileFor(conversion, checkpoint, undefined);
    await rm(join(checkpoint, 'generation_config.json'));
    expect((await make()).text).not.toContain('temperature');
    await writeFile(join(checkpoint, 'chat_template.jinja'), '{% for m in messages %}');
    const { text, warnings } = await make();
    expect(text).not.toContain('TEMPLATE');
    expect(warnings.join()).toContain('no TEMPLATE');
  });
});
