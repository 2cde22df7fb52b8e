import type { ConflictReport, ConflictSummary } from './conflicts.ts';
import type { AdapterFigures, PairFigures } from './pair-sums.ts';
import { type RetentionReport, type RetentionSummary, summarizeRetention } from './retention.ts';

/**
 * Below this more than half of a delta is lost. Adapters trained on SmolLM2 in bfloat16 keep 0.92
 * and 0.93 of theirs, and 0.67 at least of each tensor's; at a tenth of their size they keep 0.37.
 */
const RETENTION_LEAST = 0.5;

/** Of a single tensor: there are many, and some are hardly trained. */
const RETENTION_LEAST_OF_TENSOR = 0.25;

/**
 * Adapters trained apart for different tasks have cosines of 0.00 to 0.06 over a model, and of
 * −0.00 to 0.12 over a layer (examples/tiny, SmolLM2): what is clearly below is no chance.
 */
const OPPOSED_COSINE = -0.1;
const OPPOSED_COSINE_OF_LAYER = -0.2;

/** Two of one size then add up to 1.84 times each, where unrelated ones add up to 1.41. */
const ALIKE_COSINE = 0.7;

/** The smaller one is then a hundredth of the energy. */
const NORMS_RATIO_MAX = 10;

/**
 * Of several adapters: the sum of two that add 0.8 % (SmolLM2) answers 17 and 20 of 20 questions,
 * nearly as each alone; that of two that add 77 % (examples/tiny) 2 and 2, and with halves of them,
 * 39 %, 14 and 7 (thinned out: magnitude_prune at a density of 0.2 12 and 11, ties 8 and 11; alone
 * they answer 19 and 20). Between 0.8 % and 39 % nothing was measured.
 */
const RELATIVE_SIZE_MOST = 0.1;

/** One line: how much survives, of how many tensors that was measured, where least does. */
export function describeRetention(report: RetentionSummary): string {
  const { overall, merged, measured, worst: least } = report;
  const of = `${measured} of ${merged} merged tensors measured`;
  const [worst] = least;
  if (measured === 0 && merged > 0)
    return `not measured: it would take a pass over whole tensors (${of})`;
  if (overall === null || worst === undefined) return `nothing is added (${of})`;
  return (
    `${formatShare(overall)} of the delta survives rounding (${of}); least of ${worst.name}, ` +
    `${formatShare(worst.retention)}`
  );
}

/** How large what is added is beside the weights; undefined where that was not measured. */
export function describeSize({ relativeSize }: RetentionSummary): string | undefined {
  if (relativeSize == null) return undefined;
  return `what is added is ${formatRatio(relativeSize)} of the norm of the weights it is added to`;
}

/** Lines on how adapters agree: on every two, or on those that do so least, and on what was compared. */
export function describeConflicts(report: ConflictSummary): string[] {
  const { pairs, measured, comparable, leftOut } = report;
  const shown = pairs
    .toSorted((one, other) => (one.cosine ?? 0) - (other.cosine ?? 0))
    .slice(0, PAIRS_SHOWN_MAX);
  const more = pairs.length - shown.length;
  return [
    ...(shown.length === pairs.length ? pairs : shown).map(describePair),
    ...(more > 0 ? [`${more} more pairs, with greater cosines`] : []),
    ...(pairs.length === 0 && measured > 0 ? ['no two adapters add to the same tensor'] : []),
    ...(measured < comparable ? [`${measured} of ${comparable} tensors were compared`] : []),
    ...(leftOut > 0
      ? [`${leftOut} tensors cannot be compared (DoRA, other kinds, replaced tensors or rows)`]
      : []),
  ];
}

function describePair({ adapters, tensors, cosine, signConflicts }: PairFigures): string {
  const [one, other] = adapters;
  const figures =
    cosine === null
      ? 'one of them is zero there'
      : `cosine ${cosine.toFixed(2)}, ${formatShare(signConflicts ?? 0)} of signs opposed`;
  return `${one} and ${other}: ${tensors} tensors in common, ${figures}`;
}

/** Of 32 adapters there are 496. */
const PAIRS_SHOWN_MAX = 15;

/** What a person should know of a retention before merging. */
export function retentionWarnings(report: RetentionReport): string[] {
  const { overall, measured, tensors } = report;
  const low = tensors.filter(({ retention }) => retention < RETENTION_LEAST_OF_TENSOR);
  const [worst] = summarizeRetention(report).worst;
  if (overall === null || worst === undefined) return [];
  if (overall >= RETENTION_LEAST && low.length === 0) return [];
  const ofTensors =
    low.length === 0
      ? ''
      : `, and less than ${formatShare(RETENTION_LEAST_OF_TENSOR)} of that of ${low.length} of ` +
        `${measured} measured tensors (least of ${worst.name}, ${formatShare(worst.retention)})`;
  return [
    'Rounding to the dtype of the output loses much of what is added: ' +
      `${formatShare(overall)} of the delta survives${ofTensors}. Merge into a wider dtype (--dtype ` +
      'float32, or float16 where the weights are small enough for it), or serve the adapter unmerged.',
  ];
}

/**
 * What a person should know of several adapters that add much beside the weights: each was trained on
 * the base, and not on what the others make of it.
 */
export function sizeWarnings({ relativeSize }: RetentionReport): string[] {
  if (relativeSize === null || relativeSize < RELATIVE_SIZE_MOST) return [];
  return [
    `What the adapters add together is ${formatRatio(relativeSize)} of the norm of the weights: far ` +
      'from the base that each was trained on, so each may ruin what the other learnt, also where ' +
      'their cosine is 0. Evaluate all tasks on what comes out. Lower weights, or thinning out ' +
      '(magnitude_prune, ties), bring some of it back; serving the adapters separately all of it.',
  ];
}

/** What a person should know of several adapters before merging them. */
export function conflictWarnings({ adapters, pairs, layers }: ConflictReport): string[] {
  return pairs.flatMap((pair) => {
    const { cosine } = pair;
    const [one, other] = pair.adapters;
    if (cosine === null) return [];
    const both = `Adapters "${one}" and "${other}"`;
    if (cosine <= OPPOSED_COSINE) {
      return [
        `${both} fight: what they add points in opposite directions (cosine ` +
          `${cosine.toFixed(2)} over ${pair.tensors} tensors, ${formatShare(pair.signConflicts ?? 0)} ` +
          `of signs opposed), and their sum takes away from both. ${INSTEAD}`,
      ];
    }
    if (cosine >= ALIKE_COSINE) {
      return [
        `${both} add nearly the same (cosine ${cosine.toFixed(2)}): their sum is an overdose. ` +
          'Merge one of them, or give them weights that add up to 1.',
      ];
    }
    return [...layerWarning(pair, layers), ...sizeWarning(pair, adapters)];
  });
}

const INSTEAD =
  'Give one of them a lower weight, combine them by a method that settles signs (ties, dare_ties) ' +
  'instead of a sum, or serve them separately; and evaluate both tasks on what comes out.';

function layerWarning({ adapters }: PairFigures, layers: ConflictReport['layers']): string[] {
  const [one, other] = adapters;
  const opposed = layers.filter(({ pairs }) => {
    const pair = pairs.find((each) => each.adapters[0] === one && each.adapters[1] === other);
    return (pair?.cosine ?? 0) <= OPPOSED_COSINE_OF_LAYER;
  });
  if (opposed.length === 0) return [];
  const names = opposed.slice(0, 3).map(({ layer }) => layer);
  return [
    `Adapters "${one}" and "${other}" fight in ${opposed.length} of ${layers.length} layers ` +
      `(${names.join(', ')}${opposed.length > 3 ? ', …' : ''}): there the cosine is ` +
      `${OPPOSED_COSINE_OF_LAYER} or below. ${INSTEAD}`,
  ];
}

function sizeWarning(
  { adapters: [one, other] }: PairFigures,
  adapters: readonly AdapterFigures[],
): string[] {
  const normOf = (id: string): number => adapters.find((each) => each.id === id)?.norm ?? 0;
  const [small, large] = normOf(one) < normOf(other) ? [one, other] : [other, one];
  const ratio = normOf(large) / normOf(small);
  if (!(ratio >= NORMS_RATIO_MAX && Number.isFinite(ratio))) return [];
  return [
    `What adapter "${large}" adds is ${ratio.toFixed(0)} times as large as what "${small}" adds, ` +
      `which will hardly be heard. Check the weights.`,
  ];
}

/**
 * A share in percents, 100 only for all of it. A rounding that does more than the delta leaves none.
 */
export function formatShare(value: number): string {
  return `${Math.min(100 * Math.max(0, value), value < 1 ? 99.9 : 100).toFixed(1)} %`;
}

/** A ratio in percents, of the two digits that a sample gives: it may be above 100. */
export function formatRatio(value: number): string {
  return `${Number((100 * value).toPrecision(2))} %`;
}
