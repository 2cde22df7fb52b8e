import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  copyContestant,
  helpContestant,
  mergeContestant,
  NAMES,
  planContestant,
  shardsContestant,
} from './contestants.ts';
import type { CacheState, Contestant, Round } from './measurement.ts';
import { type BenchModel, type ModelSpec, makeModel } from './model-data.ts';
import { MERGEKIT_LORA, mergekitContestant, PEFT, peftContestant } from './python-contestants.ts';
import { RELEASE, releaseContestant } from './release-contestant.ts';
import { makeSyntheticMoe } from './synthetic-moe.ts';
import type { Check } from './verdict.ts';

/** What a case runs with. */
export interface CaseContext {
  /** Size of the checkpoint, where the case does not have its own. */
  readonly modelBytes: number;
  /** Inputs, kept from run to run. */
  readonly data: string;
  /** What a run makes and the next one must not find. */
  readonly scratch: string;
  readonly signal: AbortSignal;
}

/** Contestants on the same files, and what is claimed of them. */
export interface Case {
  readonly id: string;
  readonly title: string;
  readonly cache: CacheState;
  readonly checks: readonly Check[];
  /** Makes the inputs if they are not there. */
  contestants(context: CaseContext): Promise<Contestant[]>;
}

const MEMORY_SIZES = { small: 700_000_000, large: 3_000_000_000 };
const SMALL_MERGE = `${NAMES.merge}, 0.7 GB`;
const LARGE_MERGE = `${NAMES.merge}, 3 GB`;

/** Peaks are of pages, and vary by that much from run to run of the same merge. */
const FLAT_RATIO_MAX = 1.1;

const HASHING_RATIO_MAX = 1.15;

/** What weldline claims of its speed and memory, on a machine of two cores. */
export const CASES: readonly Case[] = [
  mergeCase('r16-warm', { rank: 16, cache: 'warm', timesCopyMax: 1.0, newBase: true }),
  mergeCase('r16-cold', { rank: 16, cache: 'cold', timesCopyMax: 1.1, newBase: true }),
  mergeCase('r64-warm', { rank: 64, cache: 'warm', timesCopyMax: 1.1 }),
  mergeCase('r64-cold', { rank: 64, cache: 'cold', timesCopyMax: 1.3 }),
  mergeCase('attention-cold', {
    ...{ rank: 16, cache: 'cold', timesCopyMax: 1.0 },
    targets: 'attention',
  }),
  {
    id: 'hash-warm',
    title: 'r = 16, all linear layers, warm cache, with and without hashing the output',
    cache: 'warm',
    checks: [
      {
        title: 'sha256 of the output, computed in flight, against none',
        target: { limit: HASHING_RATIO_MAX, direction: 'at most', unit: 'times', judged: 'median' },
        value: ratio(NAMES.hashed, NAMES.unhashed),
      },
    ],
    async contestants(context) {
      const model = await modelOf(context, { rank: 16 });
      return [shardsContestant(model, 'hashed'), shardsContestant(model, 'unhashed')];
    },
  },
  {
    id: 'tools',
    title: 'r = 16, all linear layers, beside other tools',
    cache: 'warm',
    checks: [
      atLeast(10, 'PEFT, whole process, against weldline merge', ratio(PEFT, NAMES.merge)),
      atLeast(5, 'PEFT without imports, against weldline merge with start', (round) =>
        quotient(secondsWithoutImports(round), round[NAMES.merge]?.seconds),
      ),
      atLeast(
        10,
        'mergekit, whole process, against weldline merge',
        ratio(MERGEKIT_LORA, NAMES.merge),
      ),
    ],
    async contestants(context) {
      const model = await modelOf(context, { rank: 16 });
      return [
        copyContestant(model),
        merge(context, model, NAMES.merge, true),
        peftContestant(model),
        mergekitContestant(model, context.scratch),
      ];
    },
  },
  {
    id: 'memory',
    title: 'memory of weldline merge, default settings, base new',
    cache: 'warm',
    checks: [
      memoryAtMost(200, 'peak memory of weldline merge, 0.7 GB', SMALL_MERGE),
      memoryAtMost(200, 'peak memory of weldline merge, 3 GB', LARGE_MERGE),
      {
        title: 'peak memory with 3 GB against 0.7 GB',
        target: { limit: FLAT_RATIO_MAX, direction: 'at most', unit: 'times', judged: 'median' },
        value: (round) =>
          quotient(round[LARGE_MERGE]?.peakMemoryBytes, round[SMALL_MERGE]?.peakMemoryBytes),
      },
    ],
    async contestants(context) {
      const small = await modelOf(context, { rank: 16, bytes: MEMORY_SIZES.small });
      const large = await modelOf(context, { rank: 16, bytes: MEMORY_SIZES.large });
      return [merge(context, small, SMALL_MERGE, false), merge(context, large, LARGE_MERGE, false)];
    },
  },
  {
    id: 'release',
    title: 'weldline release through the embedded Temporal server',
    cache: 'warm',
    checks: [memoryAtMost(450, 'peak memory of a Temporal worker that merges', RELEASE)],
    async contestants(context) {
      const model = await modelOf(context, { rank: 16 });
      return [releaseContestant(model, join(context.data, 'release-home'), context.scratch)];
    },
  },
  {
    id: 'plan',
    title: 'weldline plan of a synthetic mixture of experts, 400B parameters',
    cache: 'warm',
    checks: [
      secondsAtMost(3, 'planning a 400B mixture of experts', NAMES.plan),
      memoryAtMost(300, 'peak memory of planning it', NAMES.plan),
    ],
    async contestants({ data, scratch }) {
      const moe = await moeOf(join(data, 'synthetic-moe'));
      return [planContestant(moe, join(scratch, 'home'))];
    },
  },
  {
    id: 'help',
    title: 'weldline --help',
    cache: 'warm',
    checks: [secondsAtMost(0.15, 'cold start of weldline --help', NAMES.help)],
    contestants: async ({ scratch }) =>
      (['warm', 'cold'] as const).map((cache) => helpContestant(cache, join(scratch, 'home'))),
  },
];

interface MergeCaseOptions {
  readonly rank: number;
  readonly cache: CacheState;
  readonly timesCopyMax: number;
  readonly targets?: ModelSpec['targets'];
  /** Also merge with a base that was never seen before. */
  readonly newBase?: boolean;
}

function mergeCase(id: string, options: MergeCaseOptions): Case {
  const { rank, cache, timesCopyMax: limit, targets = 'all-linear', newBase = false } = options;
  const layers = targets === 'attention' ? 'attention layers only' : 'all linear layers';
  const title = `r = ${rank}, ${layers}, ${cache} cache`;
  return {
    id,
    title,
    cache,
    checks: [
      {
        title: `${title}: merge + sync against cp + sync`,
        target: { limit, direction: 'at most', unit: 'times', judged: 'median' },
        value: ratio(NAMES.merge, NAMES.copy),
      },
    ],
    async contestants(context) {
      const model = await modelOf(context, { rank, targets });
      return [
        copyContestant(model),
        merge(context, model, NAMES.merge, true),
        ...(newBase ? [merge(context, model, NAMES.mergeNewBase, false)] : []),
      ];
    },
  };
}

function modelOf(context: CaseContext, spec: Partial<ModelSpec>): Promise<BenchModel> {
  const { data, modelBytes, signal } = context;
  const defaults: ModelSpec = { bytes: modelBytes, rank: 16, targets: 'all-linear' };
  return makeModel(data, { ...defaults, ...spec }, signal);
}

/** Made once; the adapter's configuration is written last. */
async function moeOf(directory: string): Promise<{ base: string; adapter: string }> {
  const [base, adapter] = [join(directory, 'base'), join(directory, 'adapter')];
  if (existsSync(join(adapter, 'adapter_config.json'))) return { base, adapter };
  return makeSyntheticMoe(directory);
}

/** Each has a home of its own, so that none remembers another's digests. */
function merge({ scratch }: CaseContext, model: BenchModel, name: string, baseKnown: boolean) {
  const home = join(scratch, `home of ${name}`);
  return mergeContestant(model, { name, home, baseKnown });
}

function atLeast(limit: number, title: string, value: Check['value']): Check {
  return {
    title,
    target: { limit, direction: 'at least', unit: 'times', judged: 'median' },
    value,
  };
}

function secondsAtMost(limit: number, title: string, contestant: string): Check {
  return {
    title,
    target: { limit, direction: 'at most', unit: 'seconds', judged: 'median' },
    value: (round) => round[contestant]?.seconds,
  };
}

/** A peak that one run in five exceeds is no peak: the highest of the rounds counts. */
function memoryAtMost(megabytes: number, title: string, contestant: string): Check {
  const limit = megabytes * 1_000_000;
  return {
    title,
    target: { limit, direction: 'at most', unit: 'bytes', judged: 'highest' },
    value: (round) => round[contestant]?.peakMemoryBytes,
  };
}

/** Within a round: what slows one run down slows its neighbours down. */
function ratio(of: string, to: string): Check['value'] {
  return (round) => quotient(round[of]?.seconds, round[to]?.seconds);
}

/** PEFT's load, merge and save, as it times them itself. */
function secondsWithoutImports(round: Round): number | undefined {
  const { load, merge, save } = round[PEFT]?.parts ?? {};
  if (load === undefined || merge === undefined || save === undefined) return undefined;
  return load + merge + save;
}

function quotient(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b;
}
