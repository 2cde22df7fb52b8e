/**
 * A program that runs one GGUF model with llama.cpp's library and answers requests, JSON lines on
 * its standard streams (tools/side-process.ts). Its one argument is `LlamaModelOptions` as JSON.
 *
 *     {"ready": true, "vocabulary": 512, "contextTokens": 256}
 *     {"id": 1, "do": "answer", "what", "prompt", "addSpecialTokens", "newTokensMax"}
 *       → {"id": 1, "text", "promptTokens"}
 *     {"id": 2, "do": "distributions", "what", "text", "addSpecialTokens", "positionsMax"?, "file"}
 *       → {"id": 2, "tokens", "from", "positions"}; float32 logits [positions, vocabulary] in `file`
 *
 * While it works it says `{"id": n, "evaluated": tokens}`, which shows that it is alive.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type LlamaModel, type LlamaModelOptions, loadLlamaModel } from './llama-model.ts';

interface AnswerMessage {
  readonly id: number;
  /** What errors call the text: `prompt 3`. */
  readonly what: string;
  readonly do: 'answer';
  readonly prompt: string;
  readonly addSpecialTokens: boolean;
  readonly newTokensMax: number;
}

interface DistributionsMessage {
  readonly id: number;
  readonly what: string;
  readonly do: 'distributions';
  readonly text: string;
  readonly addSpecialTokens: boolean;
  readonly positionsMax?: number;
  /** Where the logits go, made anew. */
  readonly file: string;
}

const NOT_FINITE = "The model's logits are not finite: its weights are damaged.";

const print = (reply: Readonly<Record<string, unknown>>): void => {
  process.stdout.write(`${JSON.stringify(reply)}\n`);
};

function tokensOf(
  model: LlamaModel,
  text: string,
  { what, addSpecialTokens }: AnswerMessage | DistributionsMessage,
): Int32Array {
  const tokens = model.tokenize(text, addSpecialTokens);
  const { contextTokens } = model;
  if (tokens.length === 0) {
    throw new Error(`${what} is empty: it has no token for the model to go on from.`);
  }
  if (tokens.length > contextTokens) {
    throw new Error(
      `${what} has ${tokens.length} tokens, more than the ${contextTokens} of the model's context.`,
    );
  }
  return tokens;
}

/** The most probable token; of equals the first. */
function best(logits: Float32Array): number {
  let index = 0;
  for (let each = 0; each < logits.length; each++) {
    if (Number.isNaN(logits[each])) throw new Error(NOT_FINITE);
    if (logits[each]! > logits[index]!) index = each;
  }
  return index;
}

async function answer(model: LlamaModel, message: AnswerMessage): Promise<void> {
  const { id, prompt } = message;
  const promptTokens = tokensOf(model, prompt, message);
  const newTokensMax = Math.min(message.newTokensMax, model.contextTokens - promptTokens.length);
  model.begin(promptTokens.length + newTokensMax, 'last');
  const bytes: Uint8Array[] = [];
  let evaluated = 0;
  let next = promptTokens;
  // The last token that is asked for needs not be evaluated.
  for (let made = 0; made < newTokensMax; made++) {
    let token = 0;
    for (const logits of model.evaluate(next, 1)) {
      if (logits.length > 0) token = best(logits);
      evaluated += 1;
      print({ id, evaluated });
      // Lets the end of the input through, which ends this program.
      await nextTurn();
    }
    if (model.endsGeneration(token)) break;
    bytes.push(model.piece(token));
    next = Int32Array.of(token);
  }
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(bytes));
  print({ id, text, promptTokens: promptTokens.length });
}

async function distributions(model: LlamaModel, message: DistributionsMessage): Promise<void> {
  const { id, text, file } = message;
  const tokens = tokensOf(model, text, message);
  const positions = Math.min(message.positionsMax ?? tokens.length, tokens.length);
  model.begin(tokens.length, 'every');
  const output = openSync(file, 'w');
  try {
    let evaluated = 0;
    for (const logits of model.evaluate(tokens, positions)) {
      const bytes = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
      for (let done = 0; done < bytes.length; ) done += writeSync(output, bytes, done);
      evaluated += 1;
      print({ id, evaluated });
      await nextTurn();
    }
  } finally {
    closeSync(output);
  }
  print({ id, tokens: [...tokens], from: tokens.length - positions, positions });
}

async function reply(
  model: LlamaModel,
  message: AnswerMessage | DistributionsMessage,
): Promise<void> {
  try {
    if (message.do === 'answer') await answer(model, message);
    else await distributions(model, message);
    print({ id: message.id, done: true });
  } catch (error) {
    print({ id: message.id, error: error instanceof Error ? error.message : String(error) });
  }
}

const model = loadLlamaModel(JSON.parse(process.argv[2] ?? '') as LlamaModelOptions);
const { vocabulary, contextTokens } = model;
print({ ready: true, vocabulary, contextTokens });

let last: Promise<void> = Promise.resolve();
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const message = JSON.parse(line) as AnswerMessage | DistributionsMessage;
    last = last.then(() => reply(model, message));
  })
  .on('close', () => process.exit(0));
