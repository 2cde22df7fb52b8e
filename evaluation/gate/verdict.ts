import { GATE_SIGNALS, type GateSignal, type GateSignalName } from '../gate-decision.ts';

/** What a judge found. */
export interface Verdict {
  readonly failures: readonly GateSignal[];
  readonly warnings: readonly GateSignal[];
}

/** What explains the rest comes first. */
const FIRST: readonly GateSignalName[] = [
  'held-back-with-merged',
  'not-evaluated',
  'fine-tune-absent',
  'distributions-differ',
];

/** Most serious first; signals of one kind stay in the order of the suites. */
export function bySeriousness(signals: readonly GateSignal[]): readonly GateSignal[] {
  const order = [...FIRST, ...GATE_SIGNALS.filter((name) => !FIRST.includes(name))];
  return signals.toSorted((one, other) => order.indexOf(one.signal) - order.indexOf(other.signal));
}
