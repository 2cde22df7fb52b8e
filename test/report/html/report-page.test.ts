import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type InsightSummary,
  measureMerge,
  summaryOf,
} from '../../../engine/insight/measure-merge.ts';
import { compileKernel } from '../../../kernels/index.ts';
import { reportPage } from '../../../report/html/report-page.ts';
import { reportFacts } from '../../../report/report-facts.ts';
import { openModelDirectory } from '../../../sources/model-directory.ts';
import { planDirectories } from '../../doubles/merge-directories.ts';
import { type Element, elementsOf, parsePage, problemsOf, textOf } from './parse-page.ts';
import { sampleInput } from './sample-facts.ts';

const EXAMPLE = fileURLToPath(new URL('../../../examples/tiny', import.meta.url));

/** The real figures of a merge of both adapters of the example. */
let insight: InsightSummary;

beforeAll(async () => {
  const directories = {
    base: join(EXAMPLE, 'base'),
    calculator: join(EXAMPLE, 'adapters/calculator'),
    extractor: join(EXAMPLE, 'adapters/extractor'),
  };
  const plan = await planDirectories(
    {
      base: directories.base,
      adapter: directories.calculator,
      others: { b: directories.extractor },
    },
    { combination: { method: 'linear' } },
  );
  const models = {
    base: await openModelDirectory(directories.base),
    a: await openModelDirectory(directories.calculator),
    b: await openModelDirectory(directories.extractor),
  };
  insight = summaryOf(await measureMerge(plan, models, await compileKernel(), { base: 'local' }));
});

const page = (input = sampleInput({ insight })): string => reportPage(reportFacts(input));

function sectionOf(root: Element, id: string): Element {
  const sections = [...elementsOf(root)].filter(({ name }) => name === 'section');
  const found = sections.find(({ attributes }) => attributes.get('aria-labelledby') === id);
  if (found === undefined) throw new Error(`there is no section ${id}`);
  return found;
}

const plain = (element: Element): string => textOf(element).replace(/\s+/g, ' ');

describe('the report', () => {
  it('is well-formed, accessible, and loads and runs nothing', () => {
    const text = page();
    const root = parsePage(text);
    expect(problemsOf(root)).toEqual([]);
    const names = [...elementsOf(root)].map(({ name }) => name);
    for (const name of ['title', 'header', 'main', 'nav', 'footer', 'h1'])
      expect(names.filter((each) => each === name).length, name).toBeGreaterThanOrEqual(1);
    expect([...elementsOf(root)].find(({ name }) => name === 'html')?.attributes.get('lang')).toBe(
      'en',
    );
    expect(text).not.toMatch(/url\(|@import|https?:/);
    const [, style = ''] = /<style>([\s\S]*)<\/style>/.exec(text) ?? [];
    const digest = createHash('sha256').update(style).digest('base64');
    expect(text).toContain(`default-src &#39;none&#39;; style-src &#39;sha256-${digest}&#39;`);
  });

  it('is the same, byte for byte, for the same facts in whatever order results arrive', () => {
    const input = sampleInput({ insight });
    const { evaluation, stages = [] } = input;
    const shuffled = {
      ...input,
      stages: stages.toReversed(),
      evaluation: evaluation && { ...evaluation, results: evaluation.results.toReversed() },
    };
    expect(page(shuffled)).toBe(page(input));
    const facts = reportFacts(input);
    expect(reportPage(JSON.parse(JSON.stringify(facts)))).toBe(reportPage(facts));
  });

  it('shows what was measured: every layer and module, and every two adapters', () => {
    const layers = sectionOf(parsePage(page()), 'layers');
    const tables = [...elementsOf(layers)].filter(({ name }) => name === 'table');
    expect(tables).toHaveLength(2);
    const textsOf = (kind: string) =>
      [...elementsOf(tables[0]!)]
        .filter(({ name }) => name === kind)
        .map((each) => plain(each).trim());
    const heads = textsOf('th');
    expect(heads).toEqual([
      ...['layer', 'q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
      ...['0', '1', '2'],
    ]);
    const cells = textsOf('td');
    const figures = insight.tensors ?? [];
    const query = figures.find(({ name }) => name.endsWith('layers.0.self_attn.q_proj.weight'));
    expect(cells[0]).toBe(`${(100 * query!.relativeSize).toPrecision(2)} %`);
    expect(cells).toHaveLength(21);
    const conflicts = plain(sectionOf(parsePage(page()), 'conflicts'));
    expect(conflicts).toContain('21 of 21 tensors compared');
    expect(conflicts).toContain('of signs opposed');
  });

  it('has layers in the order of their numbers, which plans name as text', () => {
    const { conflicts } = insight;
    const pairs = conflicts!.pairs;
    const layers = ['0', '1', '10', '11', '2'].map((n) => ({ layer: `model.layers.${n}`, pairs }));
    const changed = { ...insight, conflicts: { ...conflicts!, layers } };
    const root = parsePage(page(sampleInput({ insight: changed })));
    const tables = [...elementsOf(sectionOf(root, 'conflicts'))].filter((e) => e.name === 'table');
    const heads = [...elementsOf(tables.at(-1)!)].filter(
      ({ attributes }) => attributes.get('scope') === 'row',
    );
    expect(heads.map((head) => plain(head).trim())).toEqual(['0', '1', '2', '10', '11']);
  });

  it('begins with the verdict, and with what failed and why', () => {
    const verdict = plain(sectionOf(parsePage(page()), 'verdict'));
    expect(verdict).toMatch(
      /^ ± Ship 6 of 7 artefacts, do not ship 1 6 of 7 .* weldline approve release-two-tasks --override "reason" gguf-q2_k ✕ Do not ship 50 MB, 2\.96 bits per weight scores 45\.0 % on calculator \(reference 95\.0 %\), worst of 2 suites KL 0\.41 nats per token Failed: Scores dropped on suite calculator score-drop It answers 9 of 20/,
    );
    expect(verdict).toMatch(/ gguf-q4_k_m ✓ Ship .* 1 warning: The suite is too small to tell /);
    const warnings = plain(sectionOf(parsePage(page()), 'warnings'));
    // Once, whatever the number of artefacts it is said of.
    expect(warnings.match(/About 3000 prompts would tell/g)).toHaveLength(1);
    expect(warnings).toContain('suite-too-small (gguf-q4_k_m, gguf-q4_k_s, awq-w4a16-g64)');
  });

  it('gives scores the interval of Wilson, also of what the gate does not judge', () => {
    const scores = plain(sectionOf(parsePage(page()), 'scores'));
    expect(scores).toContain(' base alone 5.0 % 0.9 % to 23.6 % ');
    expect(scores).toContain(' adapter extractor on its base 10.0 % 2.8 % to 30.1 % ');
    expect(scores).toContain('asks for a drop of at most 0.1 %, a score of at least 80.0 %, a KL');
  });

  it('leaves out what nobody evaluated, converted or measured', () => {
    const { release } = sampleInput();
    const root = parsePage(reportPage(reportFacts({ release })));
    expect(problemsOf(root)).toEqual([]);
    expect(plain(sectionOf(root, 'verdict'))).toMatch(
      /^ \? A person must decide Nothing was evaluated: .* merged model \? A person must decide/,
    );
    for (const id of ['scores', 'distances', 'examples', 'layers', 'conflicts', 'errors', 'times'])
      expect(() => sectionOf(root, id), id).toThrow('there is no section');
  });

  it('shows answers that changed, what was lost first, and counts the rest', () => {
    const examples = sectionOf(parsePage(page()), 'examples');
    const [summary, ...details] = [...elementsOf(examples)].filter(({ name }) => name === 'table');
    expect(plain(summary!)).toContain(
      'gguf-q2_k calculator adapter calculator on its base 10 0 0 10',
    );
    expect(details).toHaveLength(6);
    expect(plain(examples)).toContain('gguf-q2_k on calculator: 5 of 10 answers');
    expect(plain(details[2]!)).toContain('Q: 9+10 = ✕ was right, is wrong [19] [19] [9] Q: what?');
  });
});

describe('names, answers and warnings from outside', () => {
  const HOSTILE = [
    '</script><script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onload='x",
    '</style></title></svg><!--',
    '&lt;b&gt;&amp;&#0;',
    '\u202emoc.live\u2066\u200f',
    'אבג عربى',
    '\u0000\u0007\ud800x',
    'w'.repeat(5000),
    '`y` \\',
    ']]>',
    '  \n\r\n\t ',
  ];

  /** The same release with every text from outside replaced. */
  function withText(text: string) {
    const input = sampleInput({ name: text, insight });
    const replaced = JSON.parse(JSON.stringify(input), (key, value) => {
      const isFree = /^(text|prompt|expected|message|location|model|trainingRun|commit|runner)$/;
      if (isFree.test(key) && typeof value === 'string' && value.trim() !== '') return text;
      if (key === 'warnings' && typeof value[0] === 'string') return [text];
      if (key === 'checks') return [text];
      // Ids of a suite, of an adapter and of candidates: they get into attributes too.
      return typeof value === 'string' ? value.replaceAll('calculator', text) : value;
    });
    return { ...replaced, approval: { by: text, override: text } };
  }

  /** Elements in their order with the names of their attributes: what markup makes of a page. */
  function shapeOf(input: ReturnType<typeof withText>): string[] {
    const root = parsePage(page(input));
    expect(problemsOf(root)).toEqual([]);
    return [...elementsOf(root)].map(
      ({ name, attributes }) => `${name} ${[...attributes.keys()].join(' ')}`,
    );
  }

  let usual: readonly string[];
  beforeAll(() => {
    usual = shapeOf(withText('x'));
  });

  it.each(HOSTILE.map((text) => [JSON.stringify(text.slice(0, 40)), text]))(
    'cannot leave their place: %s',
    (_, text) => {
      expect(shapeOf(withText(text))).toEqual(text.trim() === '' ? shapeOf(withText(' ')) : usual);
      // Marks that turn text around, and controls, are shown by number.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: none may be there
      expect(page(withText(text))).not.toMatch(/[\u0000-\u0008\u202a-\u202e\u2066-\u2069\ud800]/u);
    },
  );

  it('cannot, whatever they are made of', () => {
    const pieces = fc.constantFrom(...HOSTILE.map((text) => text.slice(0, 50)), 'a', '<', '"', '&');
    const text = fc.array(pieces, { minLength: 1, maxLength: 6 }).map((all) => `x${all.join('')}`);
    const check = (each: string) => {
      expect(shapeOf(withText(each))).toEqual(usual);
    };
    fc.assert(fc.property(text, check), { numRuns: 20 });
  });

  it('are still there to be read', () => {
    const root = parsePage(page(withText('</script>"&\u202e')));
    expect(plain(sectionOf(root, 'warnings'))).toContain('</script>"&‹U+202E›');
    expect(plain(sectionOf(root, 'verdict'))).toContain('Approved by </script>"&‹U+202E›, over');
  });
});
