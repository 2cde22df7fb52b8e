import { readFile, rm } from 'node:fs/promises';
import { z } from 'zod';
import { systemErrorCode, WeldlineError } from '../../engine/errors.ts';
import type { Distributions } from '../runner.ts';

const position = z.number().int().nonnegative();
const replySchema = z.object({
  tokens: z.array(z.number().int()),
  from: position,
  vocabulary: position,
});

/**
 * Takes what a runner's program wrote for a text: float32 logits [tokens from `from` on, vocabulary],
 * little-endian, in a file that is removed.
 *
 * @param program what errors call it
 * @param reply what it said: `{tokens, from, vocabulary}`
 * @throws WeldlineError `evaluate.runner-failed` if the file and what was said do not fit
 */
export async function readDistributions(
  program: string,
  file: string,
  reply: Readonly<Record<string, unknown>>,
): Promise<Omit<Distributions, 'index'>> {
  const said = replySchema.safeParse(reply);
  if (!said.success) throw unfit(program, `replied ${JSON.stringify(reply).slice(0, 200)}`);
  const { tokens, from, vocabulary } = said.data;
  const bytes = await readFile(file).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    throw unfit(program, 'wrote no file');
  });
  await rm(file);
  const expected = (tokens.length - from) * vocabulary * Float32Array.BYTES_PER_ELEMENT;
  if (bytes.length !== expected) {
    throw unfit(program, `wrote ${bytes.length} bytes instead of ${expected}`);
  }
  // A copy, because a Float32Array begins at a multiple of four bytes.
  const values = new Float32Array(new Uint8Array(bytes).buffer);
  return { tokens: Int32Array.from(tokens), from, vocabulary, values, areLogProbabilities: false };
}

function unfit(program: string, what: string): WeldlineError {
  return new WeldlineError(
    'evaluate.runner-failed',
    `${program} was asked for the probabilities of a text and ${what}. weldline doctor says which ` +
      'programs are used; correct what is wrong with them and resume.',
  );
}
