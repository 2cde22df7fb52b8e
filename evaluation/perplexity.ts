import { WeldlineError } from '../engine/errors.ts';
import { normalizerOf } from './compare-distributions.ts';
import type { DistributionRequest, Distributions, Runner } from './runner.ts';

/** Characters of a window: some 500 tokens of English, llama-perplexity's default. */
const WINDOW_CHARACTERS = 2048;
/** Tokens counted in a window at most; a row of logits for each is in memory. */
const COUNTED_TOKENS_MAX = 256;
/** Windows end after a space within their last so many characters, as a share. */
const SEAM_SHARE = 1 / 4;

/**
 * Perplexity of a text: exp of the mean negative log-probability of its tokens, in nats.
 *
 * As llama-perplexity does, the text is cut into windows that do not overlap, each is evaluated on
 * its own (with BOS where the model has one), and the tokens of its second half are counted, so
 * that all of them have a context. Windows are cut by characters, after a space, because that is
 * the same for every runner and tokenizer: 2048 of them, or as many as the model has positions, if
 * that is less. Of a window with very many tokens the last 256 count.
 *
 * @returns the perplexity and how many tokens it is the mean of
 * @throws WeldlineError `evaluate.text-too-short`, `evaluate.not-finite`; what the runner throws
 */
export async function measurePerplexity(
  runner: Runner,
  text: string,
  signal: AbortSignal,
  onProgress?: (windowsDone: number, windows: number) => void,
): Promise<{ value: number; tokens: number }> {
  if (runner.distributions === undefined) {
    throw new WeldlineError(
      'evaluate.runner-failed',
      `Perplexity needs probabilities of the whole vocabulary, which ${runner.identity} does not give.`,
    );
  }
  const requests = windowsOf(runner, text).map(
    (window, index): DistributionRequest => ({
      index,
      text: window,
      addSpecialTokens: true,
      positionsMax: COUNTED_TOKENS_MAX + 1,
    }),
  );
  const windows: { nats: number; tokens: number }[] = [];
  let done = 0;
  for await (const distributions of runner.distributions(requests, signal)) {
    windows[distributions.index] = measureWindow(distributions);
    done += 1;
    onProgress?.(done, requests.length);
  }
  // In the order of the text, whatever the order of the answers: floating-point sums depend on it.
  const nats = windows.reduce((sum, window) => sum + window.nats, 0);
  const tokens = windows.reduce((sum, window) => sum + window.tokens, 0);
  if (tokens === 0) {
    throw new WeldlineError(
      'evaluate.text-too-short',
      'The text is too short for a perplexity: give a page or more, as the model should write, and ' +
        'release again.',
    );
  }
  const value = Math.exp(nats / tokens);
  if (!Number.isFinite(value)) {
    throw new WeldlineError(
      'evaluate.not-finite',
      'The perplexity is no finite number: the weights are damaged, or overflow in 16 bits.',
    );
  }
  return { value, tokens };
}

/** The windows of a text, which joined are the text. */
export function windowsOf(
  { contextTokens }: Pick<Runner, 'contextTokens'>,
  text: string,
): string[] {
  // Hardly any text has more tokens than characters.
  const characters = Math.min(WINDOW_CHARACTERS, contextTokens ?? WINDOW_CHARACTERS);
  const windows: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = windowEnd(text, start, characters);
    windows.push(text.slice(start, end));
    start = end;
  }
  return windows;
}

function windowEnd(text: string, start: number, characters: number): number {
  const limit = start + characters;
  if (limit >= text.length) return text.length;
  for (let end = limit; end > limit - characters * SEAM_SHARE; end--) {
    if (/\s/.test(text[end - 1]!) && !/\s/.test(text[end]!)) return end;
  }
  // Not between the two halves of a character.
  return /[\uDC00-\uDFFF]/.test(text[limit]!) ? limit - 1 : limit;
}

function measureWindow({ tokens, from, values, vocabulary }: Distributions): {
  nats: number;
  tokens: number;
} {
  let nats = 0;
  let counted = 0;
  const half = Math.max(Math.ceil(tokens.length / 2), from + 1);
  for (let index = half; index < tokens.length; index++) {
    const row = (index - 1 - from) * vocabulary;
    const logits = values.subarray(row, row + vocabulary);
    nats += normalizerOf(logits).logSum - logits[tokens[index]!]!;
    counted += 1;
  }
  return { nats, tokens: counted };
}
