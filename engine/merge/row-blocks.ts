import type { PlannedDelta, PlannedTensor } from '../plan/plan.ts';
import { matrixOf } from './tensor-work.ts';

/** Rows of a tensor to which the same deltas are added; none to those that no adapter changes. */
export interface RowBlock {
  readonly begin: number;
  readonly end: number;
  readonly deltas: readonly PlannedDelta[];
}

/**
 * Cuts rows where the deltas change: an expert of many, or a projection of a fused one.
 * @param begin first row, and `end` the one after the last
 */
export function* rowBlocks(tensor: PlannedTensor, begin: number, end: number): Generator<RowBlock> {
  const deltas = tensor.deltas ?? [];
  if (deltas.every(({ rows }) => rows === undefined)) {
    yield { begin, end, deltas };
    return;
  }
  const { rows: count } = matrixOf(tensor);
  const near = deltas.filter((delta) => touches(delta, begin, end, count));
  const edges = near.flatMap((delta) => {
    const rows = rowsOf(delta, count);
    return [rows.begin, rows.end].filter((edge) => edge > begin && edge < end);
  });
  const cuts = [...new Set([begin, ...edges, end])].sort((a, b) => a - b);
  for (const [index, from] of cuts.entries()) {
    const to = cuts[index + 1];
    if (to === undefined) return;
    const inside = near.filter((delta) => touches(delta, from, to, count));
    yield { begin: from, end: to, deltas: inside };
  }
}

/** The largest total rank of the deltas of any row. */
export function largestRank(tensor: PlannedTensor): number {
  const deltas = tensor.deltas ?? [];
  const everywhere = deltas.filter(({ rows }) => rows === undefined);
  const sum = (list: readonly PlannedDelta[]): number =>
    list.reduce((all, { rank }) => all + rank, 0);
  const cut = deltas.filter(({ rows }) => rows !== undefined);
  // Sums change only where a block begins.
  const starts = new Set(cut.map(({ rows }) => rows?.begin ?? 0));
  const { rows: count } = matrixOf(tensor);
  let largest = 0;
  for (const row of starts) {
    largest = Math.max(largest, sum(cut.filter((delta) => touches(delta, row, row + 1, count))));
  }
  return sum(everywhere) + largest;
}

function touches(delta: PlannedDelta, begin: number, end: number, count: number): boolean {
  const rows = rowsOf(delta, count);
  return rows.begin < end && rows.end > begin;
}

function rowsOf({ rows }: PlannedDelta, count: number): { begin: number; end: number } {
  return rows === undefined
    ? { begin: 0, end: count }
    : { begin: rows.begin, end: rows.begin + rows.count };
}
