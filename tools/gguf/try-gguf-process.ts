/**
 * A process of its own in which llama.cpp loads a GGUF model and goes on with a text, greedily. The
 * last line of standard output is a JSON object with `TryResult`.
 *
 * Arguments: one JSON text with `TryRequest`.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface TryRequest {
  /** Module directory with `node-llama-cpp`. */
  readonly modules: string;
  /** The file, or the first of its parts. */
  readonly model: string;
  /** A LoRA adapter in GGUF. */
  readonly adapter?: string | undefined;
  readonly text: string;
  /** Tokens to generate. */
  readonly count: number;
  readonly threads?: number | undefined;
}

export interface TryResult {
  readonly text: string;
  readonly tokens: number;
}

/** A prompt and a few tokens; larger only takes memory. */
const CONTEXT_TOKENS = 128;

async function main(request: TryRequest): Promise<void> {
  const entry = createRequire(join(request.modules, 'x.js')).resolve('node-llama-cpp');
  const { getLlama } = await import(pathToFileURL(entry).href);
  const threads = request.threads ?? 0;
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: threads,
  });
  const model = await llama.loadModel({ modelPath: request.model });
  const lora = request.adapter === undefined ? {} : { lora: request.adapter };
  const context = await model.createContext({ contextSize: CONTEXT_TOKENS, ...lora });
  const sequence = context.getSequence();
  const tokens: number[] = [];
  const start = model.tokenize(request.text);
  const bos =
    model.tokens.bos === null || !model.tokens.shouldPrependBosToken ? [] : [model.tokens.bos];
  for await (const token of sequence.evaluate([...bos, ...start], { temperature: 0 })) {
    tokens.push(token);
    if (tokens.length >= request.count) break;
  }
  const text: string = model.detokenize(tokens);
  process.stdout.write(`${JSON.stringify({ text, tokens: tokens.length } satisfies TryResult)}\n`);
  await llama.dispose();
}

main(JSON.parse(process.argv[2] ?? '')).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
