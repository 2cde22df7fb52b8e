import { expect, it } from 'vitest';
import type { CandidateStep } from '../../evaluation/candidate.ts';
import { requirePeftAdapters } from '../../evaluation/require-peft-adapters.ts';
import { memoryFiles } from '../doubles/memory-files.ts';
import { stepOf } from './gate/gate-input.ts';

const FILES = {
  peft: { 'adapter_config.json': '{"peft_type": "LORA"}', 'adapter_model.safetensors': '' },
  pickle: { 'adapter_config.json': '{"peft_type": "LORA"}', 'adapter_model.bin': '' },
  mlx: { 'adapter_config.json': '{}', 'adapters.safetensors': '' },
  kohya: { 'style.safetensors': '' },
};

function check(id: keyof typeof FILES, settings: Partial<CandidateStep> = {}): Promise<void> {
  const step = { ...stepOf(`adapter:${id}`), ...settings };
  const contents = Object.entries(FILES[id]).map(
    ([path, text]) => [path, Buffer.from(text)] as const,
  );
  const { files } = memoryFiles(id, new Map(contents));
  return requirePeftAdapters([stepOf('base'), step], { [id]: files });
}

it.each(['mlx', 'kohya'] as const)(
  'refuses an adapter in the format of %s, before the merge',
  async (id) => {
    await expect(check(id)).rejects.toMatchObject({
      code: 'evaluate.adapter-unsupported',
      message: expect.stringMatching(/PEFT does not run.*evaluate\.endpoint\.models/),
    });
  },
);

it('takes what PEFT loads, and what a server has', async () => {
  await check('peft');
  await check('pickle');
  await check('kohya', { runner: 'endpoint' });
});
