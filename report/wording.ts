import type { GateSignal, GateSignalName, Interval } from '../evaluation/gate-decision.ts';
import { formatPercent } from './figures.ts';

/** What candidates, signals and figures are called where people read of them. */

const SIGNAL_WORDS: Readonly<Record<GateSignalName, string>> = {
  'score-drop': 'Scores dropped',
  'score-below-minimum': 'Score below the minimum',
  'kl-too-large': 'Too far from its reference',
  'distributions-differ': 'Not the same model as the adapter on its base',
  'fine-tune-absent': 'The fine-tune is not there',
  'perplexity-rise': 'Perplexity rose',
  'tokenized-differently': 'Tokenized differently',
  'held-back-with-merged': 'Held back with the merged model',
  'not-evaluated': 'Not evaluated',
  'suite-too-small': 'The suite is too small to tell',
};

export function signalWords({ signal }: GateSignal): string {
  return SIGNAL_WORDS[signal] ?? signal;
}

const ADAPTER = /^adapter:(.+)$/s;

/** `base`, `adapter:<id>` and `merged` in words; conversions have names that say what they are. */
export function candidateName(id: string): string {
  if (id === 'base') return 'base alone';
  if (id === 'merged') return 'merged model';
  const adapter = ADAPTER.exec(id)?.[1];
  return adapter === undefined ? id : `adapter ${adapter} on its base`;
}

export function formatInterval({ value, low, high }: Interval): string {
  const [from, to] = [low, high].map((share) => formatPercent(share).replace('\u00a0%', ''));
  return `${formatPercent(value)} (${from} to ${to})`;
}
