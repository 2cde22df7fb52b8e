import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDocument } from 'yaml';
import type { InsightSummary } from '../../engine/insight/measure-merge.ts';
import type { Manifest } from '../../engine/manifest.ts';
import { modelCard } from '../../report/model-card.ts';
import {
  type ReleaseFacts,
  type ReleaseFactsInput,
  releaseFacts,
} from '../../report/release-facts.ts';
import { reportFacts } from '../../report/report-facts.ts';
import { sampleInput } from './html/sample-facts.ts';

const DIGEST = 'a'.repeat(64);

const MANIFEST: Manifest = {
  format: 'weldline.merge',
  engine: { version: '9.8.7', format: 1 },
  plan: DIGEST,
  inputs: [
    { id: 'base', model: 'an-earlier-name', files: [{ path: 'w', size: 1, sha256: DIGEST }] },
    { id: 'tone', model: 'tone', trainingRun: 'an-earlier-run', files: [] },
  ],
  options: { dtype: 'float16' },
  rules: [{ adapter: 'tone', rule: 'peft' }],
  configEdits: [],
  warnings: [],
  tensors: { total: 19, merged: 4, replaced: 1 },
  files: [{ path: 'model.safetensors', size: 123, sha256: DIGEST }],
};

const INPUT: ReleaseFactsInput = {
  name: 'tone-model',
  version: '2.0.0',
  artefact: 'merged-tiny-2.0.0-adapter-tone-3',
  manifest: MANIFEST,
  manifestDigest: 'b'.repeat(64),
  provenance: {
    recipe: { name: 'tone-model', version: '2.0.0', digest: 'c'.repeat(64) },
    inputs: {
      base: { model: 'hf://org/tiny', commit: 'd'.repeat(40) },
      tone: { model: 'tone', trainingRun: 'run-1' },
    },
  },
  verification: {
    filesChecked: 4,
    bytesChecked: 1000,
    tensorsChecked: 19,
    rowsRecomputed: 12,
    worstRounding: 0.501,
  },
  run: { workflowId: 'release-tone', runId: 'r', startedAt: '2026-11-25T00:00:00.000Z' },
};

describe('the facts of a release', () => {
  it('hold what this release says of its inputs, and the digests of the manifest', () => {
    const facts = releaseFacts(INPUT);
    expect(facts.recipe).toEqual(INPUT.provenance.recipe);
    expect(facts.inputs).toEqual([
      { ...MANIFEST.inputs[0], model: 'hf://org/tiny', commit: 'd'.repeat(40) },
      { ...MANIFEST.inputs[1], trainingRun: 'run-1' },
    ]);
    expect(facts).toMatchObject({
      format: 'weldline.release',
      plan: DIGEST,
      manifestDigest: INPUT.manifestDigest,
      files: MANIFEST.files,
      verification: INPUT.verification,
    });
  });
});

describe('the model card', () => {
  it('says which weights of a quantised base it was merged onto', () => {
    const options = { merge_onto: 'dequantized' };
    const card = modelCard(releaseFacts({ ...INPUT, manifest: { ...MANIFEST, options } }));
    expect(card).toContain('\n| merged onto | the dequantized weights of the base |\n| engine |');
    expect(modelCard(releaseFacts(INPUT))).not.toContain('merged onto');
  });

  it('says how adapters were combined, with all that another merge would need', () => {
    const options = {
      ...{ combination: 'dare_ties', weights: '1, 0.5', densities: '0.2, 0.3' },
      ...{ majority_sign: 'total', seed: 7 },
    };
    const card = modelCard(releaseFacts({ ...INPUT, manifest: { ...MANIFEST, options } }));
    expect(card).toContain(
      '| combined | dare_ties, weights 1, 0.5, densities 0.2, 0.3, sign by total, seed 7 |',
    );
  });

  it('says how far a 16-bit base is from its NF4, where that was a choice', () => {
    const nf4Distance = { relative: 0.09127, tensors: 12, values: 196608 };
    const facts = releaseFacts({ ...INPUT, manifest: { ...MANIFEST, nf4Distance } });
    expect(facts.nf4Distance).toEqual(nf4Distance);
    expect(modelCard(facts)).toContain(
      '| base beside its NF4 | 9.13 % of its norm apart, measured on 196608 values of 12 weights |',
    );
    expect(modelCard(releaseFacts(INPUT))).not.toContain('NF4');
  });

  it('says what was made of what, and what was checked', () => {
    const card = modelCard(releaseFacts(INPUT));
    for (const part of [
      '# tone-model 2.0.0',
      'merged-tiny-2.0.0-adapter-tone-3',
      `hf://org/tiny at commit \`${'d'.repeat(40)}\``,
      'training run run-1',
      '19, of which 4 merged and 1 replaced',
      '| dtype | float16 |',
      'weldline 9.8.7',
      '12 rows',
      '0.501 roundings',
      `| model.safetensors | 123 | \`${DIGEST}\` |`,
    ]) {
      expect(card).toContain(part);
    }
    expect(card).not.toContain('## Warnings');
    expect(card).not.toContain('an-earlier');
  });

  it('says what was measured, and warns of it', () => {
    const pair = {
      adapters: ['tone', 'st|le'] as const,
      tensors: 3,
      cosine: -0.25,
      signConflicts: 0.625,
    };
    const insight: InsightSummary = {
      retention: {
        overall: 0.314,
        relativeSize: 0.0123,
        merged: 9,
        measured: 8,
        worst: [{ name: 'a.weight', retention: -2, relativeSize: 0.5 }],
      },
      conflicts: {
        ...{ comparable: 9, measured: 8, leftOut: 1 },
        adapters: [
          { id: 'tone', tensors: 9, norm: 1 },
          { id: 'st|le', tensors: 3, norm: 2 },
        ],
        pairs: [pair],
        layers: [{ layer: 'layers.0', pairs: [pair] }],
      },
      warnings: ['they fight'],
    };
    const facts = releaseFacts({ ...INPUT, insight });
    expect(facts.warnings).toEqual(['they fight']);
    expect(facts.insight).toEqual({ retention: insight.retention, conflicts: insight.conflicts });
    const card = modelCard(facts);
    expect(card).toContain(
      '## Measured\n\n' +
        '- 31.4 % of the delta survives rounding (8 of 9 merged tensors measured); least of ' +
        'a.weight, 0.0 %\n' +
        '- what is added is 1.2 % of the norm of the weights it is added to\n' +
        '- tone and st\\|le: 3 tensors in common, cosine -0.25, 62.5 % of signs opposed\n' +
        '- 8 of 9 tensors were compared\n' +
        '- 1 tensors cannot be compared (DoRA, other kinds, replaced tensors or rows)\n',
    );
    expect(card).toMatch(/## Warnings\n\n- they fight\n$/);
    expect(modelCard(releaseFacts(INPUT))).not.toContain('Measured');
  });

  it('says what was evaluated and converted, and who overruled the gate', () => {
    const facts = reportFacts({
      ...sampleInput(),
      approval: { by: 'A|da', override: 'the <suite> is wrong' },
    });
    const card = modelCard(facts.release, facts);
    expect(card).toContain('\n## Evaluation\n\n| model | suite | score (95 %) |');
    expect(card).toMatch(
      /\n\| gguf-q2_k \| calculator \| 45\.0.% \(31\.6 to 58\.4\) \| adapter calculator on its base \| 95\.0.% \(.*\) \| 0\.41 \|\n/,
    );
    expect(card).toContain('\n- gguf-q2_k: **failed the gate**: Scores dropped (score-drop)\n');
    expect(card).toContain('\n- merged model: passed the gate\n');
    expect(card).toContain('\n- approved by A\\|da, over the gate: the \\<suite\\> is wrong\n');
    expect(card).toContain('\n| gguf-q8_0 | 143 MB | 8.51 | llama.cpp v0.4.0 (80fb11ac) |\n');
    // What others are made of is not published.
    expect(card).not.toContain('\n| gguf-f16 |');
    expect(card).toMatch(/\n\n## Conversions\n\n[^#]*\n\n## Files\n/);
    const bare = modelCard(facts.release, reportFacts({ release: facts.release }));
    expect(bare).toBe(modelCard(facts.release));
  });

  it('says of a retention that it was not measured', () => {
    const retention = { overall: null, relativeSize: null, merged: 21, measured: 0, worst: [] };
    const insight = { retention, conflicts: null, warnings: [] };
    expect(modelCard(releaseFacts({ ...INPUT, insight }))).toContain(
      '## Measured\n\n- how much of the delta survives rounding was not measured: it would take a ' +
        'pass over whole tensors (0 of 21 merged tensors measured)\n\n## Files',
    );
  });

  it('has front matter that the hub reads', () => {
    expect(frontMatter(modelCard(releaseFacts(INPUT)))).toMatchObject({
      base_model: ['org/tiny'],
      base_model_relation: 'merge',
      library_name: 'transformers',
      tags: ['merged-lora', 'weldline'],
    });
  });

  it('lists warnings', () => {
    const facts = { ...releaseFacts(INPUT), warnings: ['the first', 'the second'] };
    expect(modelCard(facts)).toMatch(/## Warnings\n\n- the first\n- the second\n$/);
  });

  it('keeps its form whatever models, runs and warnings are called', () => {
    const usual = shape(bodyOf(modelCard(withTexts('m', 'r', 'w'))));
    fc.assert(
      fc.property(text(), text(), text(), (model, run, warning) => {
        const card = modelCard(withTexts(model, run, warning));
        expect(shape(bodyOf(card))).toEqual(usual);
        expect(frontMatter(card)).toEqual({
          library_name: 'transformers',
          tags: ['merged-lora', 'weldline'],
        });
        expect(bodyOf(card)).not.toMatch(/(?<!\\)<script/);
      }),
    );
  });
});

/** Texts as hostile as a directory, a recipe or a tensor can be named. */
function text(): fc.Arbitrary<string> {
  const piece = fc.constantFrom(
    'a',
    '|',
    '\n',
    '\r\n',
    '`',
    '<script>',
    '---',
    '# ',
    '"',
    '\\',
    ' ',
  );
  return fc.array(piece, { minLength: 1, maxLength: 8 }).map((pieces) => `x${pieces.join('')}x`);
}

function withTexts(model: string, trainingRun: string, warning: string): ReleaseFacts {
  const facts = releaseFacts(INPUT);
  return {
    ...facts,
    inputs: facts.inputs.map((input) => ({ ...input, model, trainingRun })),
    warnings: [warning],
  };
}

/** How each line begins and how many cells it has: what a renderer makes of the card. */
function shape(card: string): string[] {
  return card.split('\n').map((line) => {
    const cells = line.replace(/\\./g, '').split('|').length;
    return `${line.slice(0, 1)} ${cells}`;
  });
}

function bodyOf(card: string): string {
  return card.slice(card.indexOf('\n---\n'));
}

function frontMatter(card: string): Record<string, unknown> {
  const [, yaml = ''] = /^---\n([\s\S]*?)\n---\n/.exec(card) ?? [];
  return parseDocument(yaml).toJS();
}
