import { WeldlineError } from '../../errors.ts';
import type { Cut, DeltaRows } from './find-cut.ts';

/** The magnitude at which a cut is made. */
export function magnitudeAt({ bits }: Cut): number {
  return new Float32Array(Uint32Array.of(bits).buffer)[0]!;
}

/** Whether element `index` of the flattened delta stays. */
export function isKept(value: number, index: number, at: number, { equalEnd }: Cut): boolean {
  const magnitude = Math.abs(value);
  // What is not a number is above all numbers.
  return !(magnitude <= at) || (magnitude === at && index < equalEnd);
}

/**
 * Proves a cut by one look at every element, however it was found: what stays is no smaller than
 * what goes, so it is the right one if as many stay as should.
 *
 * @throws WeldlineError `verify.recomputation-mismatch`
 */
export function checkCut(delta: DeltaRows, cut: Cut, keep: number, name: string): void {
  const at = magnitudeAt(cut);
  let [above, equal] = [0, 0];
  for (let begin = 0; begin < delta.rows; begin += delta.rowsMax) {
    const values = delta.make(begin, Math.min(delta.rowsMax, delta.rows - begin));
    const equalEnd = cut.equalEnd - begin * delta.columns;
    for (let i = 0; i < values.length; i++) {
      const magnitude = Math.abs(values[i]!);
      above += magnitude > at ? 1 : 0;
      if (magnitude === at && i < equalEnd) equal += 1;
    }
  }
  // A zero is the same whether it stays or goes.
  if (at === 0 ? above <= keep : above + equal === keep) return;
  throw new WeldlineError(
    'verify.recomputation-mismatch',
    `Of a delta of "${name}" ${above + equal} elements stay, and ${keep} should, the largest. The ` +
      'merge is wrong; delete the output and report this.',
  );
}
