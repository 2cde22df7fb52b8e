import type { PlannedChange, PlannedDelta, PlannedTensor } from '../../plan/plan.ts';

/** A step in making a weight x from its source w; each takes what the one before it made. */
export type BandStep =
  /** `x += d` */
  | { readonly kind: 'add'; readonly delta: PlannedDelta }
  /** `x = m / |w + d| · (x + d)` by rows, or by columns of a weight that is stored [in, out] (DoRA). */
  | { readonly kind: 'dora'; readonly delta: PlannedDelta }
  /** `x += scaling · d₁ ∘ d₂`, of two low-rank products (LoHa). */
  | {
      readonly kind: 'hadamard';
      readonly first: PlannedDelta;
      readonly second: PlannedDelta;
      readonly scaling: number;
    }
  | Exclude<PlannedChange, { kind: 'hadamard' }>;

/** Always the same steps of a tensor: what was packed for one is known by it. */
const known = new WeakMap<PlannedTensor, readonly BandStep[]>();

/**
 * The steps of a tensor, or undefined where source and deltas are summed at once: of deltas that are
 * only added, and of DoRA by rows alone.
 */
export function bandSteps(tensor: PlannedTensor): readonly BandStep[] | undefined {
  const { deltas = [], changes = [] } = tensor;
  if (changes.length === 0) {
    const [dora] = deltas.filter(({ magnitude }) => magnitude !== undefined);
    // Of blocks of rows each is scaled by itself, alone.
    if (dora === undefined || dora.rows !== undefined) return undefined;
    if (deltas.length === 1 && !dora.byColumns) return undefined;
  }
  const steps = known.get(tensor) ?? stepsOf(deltas, changes);
  known.set(tensor, steps);
  return steps;
}

function stepsOf(
  deltas: readonly PlannedDelta[],
  changes: readonly PlannedChange[],
): readonly BandStep[] {
  const steps: BandStep[] = [];
  for (let count = 0; count <= deltas.length; count++) {
    steps.push(...changes.filter(({ after }) => after === count).map(stepOf));
    const next = deltas[count];
    if (next === undefined) continue;
    steps.push({ kind: next.magnitude === undefined ? 'add' : 'dora', delta: next });
  }
  return steps;
}

function stepOf(change: PlannedChange): BandStep {
  if (change.kind !== 'hadamard') return change;
  const { adapter, module, scaling } = change;
  const product = ({ a, b }: (typeof change)['first']): PlannedDelta => {
    const rank = b.shape[0] ?? 0;
    // The right factor is the one that deltas call A.
    return { adapter, module, a: b, b: a, rank, alpha: rank, scaling: 1, transposed: false };
  };
  return {
    kind: 'hadamard',
    first: product(change.first),
    second: product(change.second),
    scaling,
  };
}

/** The deltas whose rows a step needs by themselves, in the order of its slots. */
export function deltasOfStep(step: BandStep): readonly PlannedDelta[] {
  if (step.kind === 'hadamard') return [step.first, step.second];
  return step.kind === 'add' || step.kind === 'dora' ? [step.delta] : [];
}

/** Whether a step needs the norms of all columns before it can begin. */
export function needsColumnNorms(step: BandStep): step is Extract<BandStep, { kind: 'dora' }> {
  return step.kind === 'dora' && step.delta.byColumns === true;
}
