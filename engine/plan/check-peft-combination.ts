import type { Adapter } from '../adapters/adapter.ts';
import type { Binding } from '../adapters/bind-adapter.ts';
import { WeldlineError } from '../errors.ts';
import type { Combination } from './combination.ts';

export interface CombinedPart {
  readonly adapter: Adapter;
  readonly binding: Binding;
}

/**
 * Checks what PEFT's `add_weighted_adapter` asks of adapters, and refuses what it loses or gets
 * wrong: under a name that promises its numbers there is then nothing worth having.
 *
 * @throws WeldlineError `plan.option-invalid`
 */
export function checkPeftCombination(
  parts: readonly CombinedPart[],
  combination: Pick<Combination, 'method'>,
): void {
  const { method } = combination;
  if (!method.startsWith('peft_')) return;
  for (const part of parts) checkWhatIsLost(part, method);
  checkFirst(parts, method);
  if (method === 'peft_svd' || method === 'peft_cat') return;
  if (parts.length > 1) for (const { adapter } of parts) checkFactorNames(adapter, method);
  const ranks = parts.map(({ adapter }) => largestRank(adapter));
  if (new Set(ranks).size > 1) throw unequalRanks('the adapters', ranks, combination);
}

/** The rank that PEFT takes an adapter to have: also that of a pattern which nothing matches. */
export function largestRank({ config }: Adapter): number {
  return Math.max(config.r, ...config.rankPattern.values());
}

function checkWhatIsLost({ adapter, binding }: CombinedPart, method: string): void {
  const { replacements, tokens, deltas } = binding;
  const [replaced] = replacements.keys();
  const [row] = tokens.keys();
  const bias = [...deltas].find(([, { isBias }]) => isBias)?.[0];
  const scaled = [...deltas].find(([, { pair }]) => pair.magnitude !== undefined)?.[0];
  const lost = replaced ?? row ?? bias ?? scaled;
  if (lost === undefined) return;
  const how: readonly [string | undefined, string][] = [
    [replaced, 'replaces (modules_to_save, bias)'],
    [row, 'replaces rows of (trainable_token_indices)'],
    [bias, 'adds to (lora_bias)'],
    [scaled, 'scales the rows of (DoRA)'],
  ];
  const what = how.find(([name]) => name === lost)?.[1];
  throw invalid(
    `Adapter "${adapter.id}" ${what} "${lost}", and PEFT loses that when it combines adapters; ` +
      `${method} would have to lose it too. Use combination.method (--combine) linear, which keeps it.`,
  );
}

/** A weight's sign goes to A alone; where the factors of a file are the other way round, to B. */
function checkFactorNames({ id, pairs }: Adapter, method: string): void {
  const pair = pairs.find(({ isOfTranspose }) => isOfTranspose === true);
  if (pair === undefined) return;
  throw invalid(
    `Adapter "${id}" holds the factors of "${pair.module}" transposed (MLX), and ${method} treats A ` +
      'and B each in its own way, for files that PEFT can read. Use combination.method (--combine) ' +
      'linear or svd, or convert the adapter to PEFT.',
  );
}

/** PEFT gives the result the configuration of the first adapter. */
function checkFirst(parts: readonly CombinedPart[], method: string): void {
  const [first, ...others] = parts;
  if (first === undefined || others.length === 0) return;
  if (first.adapter.config.useRslora) {
    throw invalid(
      `Adapter "${first.adapter.id}" uses use_rslora and is the first: PEFT gives its flag to the ` +
        'result, which makes that too strong by the square root of its rank. Name another adapter ' +
        `first to get ${method} without this, or use combination.method (--combine) linear or svd.`,
    );
  }
  if (!first.adapter.config.targetsAreNarrowed) return;
  for (const { adapter, binding } of others) {
    const missed = [...binding.deltas.keys()].find((name) => !first.binding.deltas.has(name));
    if (missed === undefined) continue;
    throw invalid(
      `Adapter "${first.adapter.id}" is the first and sets exclude_modules or layers_to_transform, ` +
        `which PEFT gives to the result: "${missed}", which "${adapter.id}" changes, may be lost. ` +
        'Name another adapter first, or use combination.method (--combine) linear or svd.',
    );
  }
}

/** @param where the tensor, or that it is about whole adapters */
export function unequalRanks(
  where: string,
  ranks: readonly number[],
  { method }: Pick<Combination, 'method'>,
): WeldlineError {
  return new WeldlineError(
    'plan.option-invalid',
    `${method} combines the factors of ${where} place by place, as PEFT does, and these have the ` +
      `ranks ${ranks.join(', ')}. Use combination.method (--combine) linear for the exact sum, or svd ` +
      'for one of lower rank; both take any ranks.',
  );
}

function invalid(message: string): WeldlineError {
  return new WeldlineError('plan.option-invalid', `${message} Nothing was written.`);
}
