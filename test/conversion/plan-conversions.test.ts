import { describe, expect, it } from 'vitest';
import type { GgufConversion } from '../../config/release-quality.ts';
import { planConversions } from '../../conversion/plan-conversions.ts';

const gguf = (settings: Partial<GgufConversion>): GgufConversion => ({
  kind: 'gguf',
  quantizations: ['Q4_K_M'],
  from: 'F16',
  adapters: false,
  ...settings,
});

const plan = (settings: Partial<GgufConversion>, adapterIds: readonly string[] = []) =>
  planConversions({ conversions: [gguf(settings)], adapterIds });

describe('planConversions', () => {
  it('makes the source of quantizations first, once, and publishes it only if it was asked for', () => {
    expect(plan({ quantizations: ['Q8_0', 'Q4_K_M'] })).toEqual([
      { kind: 'gguf', id: 'gguf-f16', type: 'F16', wanted: false },
      { kind: 'gguf', id: 'gguf-q8_0', type: 'Q8_0', after: 'gguf-f16', wanted: true },
      { kind: 'gguf', id: 'gguf-q4_k_m', type: 'Q4_K_M', after: 'gguf-f16', wanted: true },
    ]);
    const wanted = plan({ quantizations: ['Q8_0', 'F16'] });
    expect(wanted.map((step) => [step.id, 'wanted' in step && step.wanted])).toEqual([
      ['gguf-f16', true],
      ['gguf-q8_0', true],
    ]);
  });

  it('converts every type without loss from the checkpoint, and makes no source that nobody needs', () => {
    expect(plan({ quantizations: ['BF16', 'F32'] })).toEqual([
      { kind: 'gguf', id: 'gguf-bf16', type: 'BF16', wanted: true },
      { kind: 'gguf', id: 'gguf-f32', type: 'F32', wanted: true },
    ]);
    const [source, other] = plan({ quantizations: ['Q6_K'], from: 'BF16' });
    expect(source).toMatchObject({ id: 'gguf-bf16', wanted: false });
    expect(other).toMatchObject({ after: 'gguf-bf16' });
  });

  it('splits what is published and nothing else', () => {
    const steps = plan({ quantizations: ['Q8_0'], splitBytes: 5_000 });
    expect(steps.map((step) => 'splitBytes' in step && step.splitBytes)).toEqual([false, 5_000]);
  });

  it('refuses types that need an importance matrix before anything is made', () => {
    expect(() => plan({ quantizations: ['Q4_K_M', 'IQ2_XXS', 'Q2_K_S'] })).toThrow(
      expect.objectContaining({
        code: 'convert.needs-imatrix',
        message: expect.stringMatching(/IQ2_XXS, Q2_K_S .*imatrix: \{calibration: PATH\}/),
      }),
    );
  });

  it('gives the importance matrix to what is quantized', () => {
    const imatrix = { calibration: '/data/text' };
    const steps = plan({ quantizations: ['F16', 'IQ2_XXS'], imatrix });
    expect(steps.map((step) => 'imatrix' in step && step.imatrix)).toEqual([false, imatrix]);
  });

  it('converts adapters where the recipe says so', () => {
    const steps = plan({ quantizations: ['F16'], adapters: true }, ['one', 'two']);
    expect(steps.slice(1)).toEqual([
      { kind: 'gguf-adapter', id: 'gguf-adapter-one', adapter: 'one' },
      { kind: 'gguf-adapter', id: 'gguf-adapter-two', adapter: 'two' },
    ]);
    expect(plan({ quantizations: ['F16'] }, ['one'])).toHaveLength(1);
  });

  it('names integer conversions after what is in them', () => {
    const settings = {
      kind: 'awq' as const,
      bits: 4 as const,
      groupSize: 64,
      symmetric: true,
      ignore: ['lm_head'],
      calibration: '/data/calibration.jsonl',
      samples: 8,
      sequenceLength: 64,
    };
    const conversions = [settings, { ...settings, kind: 'gptq' as const, bits: 8 as const }];
    const steps = planConversions({ conversions, adapterIds: ['one'] });
    expect(steps.map(({ id }) => id)).toEqual(['awq-w4a16-g64', 'gptq-w8a16-g64']);
    expect(steps[0]).toEqual({ kind: 'awq', id: 'awq-w4a16-g64', settings });
  });
});
