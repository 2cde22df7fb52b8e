import { z } from 'zod';
import { WeldlineError } from '../../engine/errors.ts';
import type { Answer, AnswerRequest, Runner } from '../runner.ts';
import { EndpointClient, type EndpointClientOptions } from './endpoint-client.ts';

/** Servers batch what comes together; more than this only waits in their queues. */
const REQUESTS_AT_ONCE = 8;
const NAMES_SHOWN_MAX = 20;

const modelsSchema = z.object({ data: z.array(z.object({ id: z.string() })) });
const choicesSchema = z.object({
  choices: z.array(z.object({ text: z.string(), finish_reason: z.string().nullish() })),
});

export interface EndpointRunnerOptions extends EndpointClientOptions {
  /** What the server calls the model. */
  readonly model: string;
  readonly signal?: AbortSignal | undefined;
}

/** `Runner.identity` of a model at an endpoint, whose version nobody knows. */
export function endpointIdentity(url: string, model: string): string {
  return `endpoint ${url}, model ${model}`;
}

/**
 * A model of an OpenAI-compatible server (vLLM, llama-server, TGI, …), by `/completions`: the prompt
 * goes there as text, with the chat template applied already. Temperature 0, no distributions.
 *
 * @throws WeldlineError `evaluate.endpoint-failed` where the server does not answer or does not have
 *   the model; the reason of `signal`
 */
export async function startEndpointRunner(options: EndpointRunnerOptions): Promise<Runner> {
  const { url, model, signal = new AbortController().signal } = options;
  signal.throwIfAborted();
  const client = new EndpointClient(options);
  const names = await client.request('/models', undefined, model, readNames, signal);
  if (!names.includes(model)) {
    const more =
      names.length > NAMES_SHOWN_MAX ? `, and ${names.length - NAMES_SHOWN_MAX} more` : '';
    throw new WeldlineError(
      'evaluate.endpoint-failed',
      `The endpoint ${url} has no model "${model}". It has ` +
        `${names.slice(0, NAMES_SHOWN_MAX).join(', ') || 'none'}${more}. Correct evaluate.endpoint.models, ` +
        'or have the server load it (an adapter: vLLM with --enable-lora --lora-modules name=path).',
    );
  }
  return new EndpointRunner(endpointIdentity(url, model), client, model, signal);
}

class EndpointRunner implements Runner {
  readonly identity: string;
  readonly #client: EndpointClient;
  readonly #model: string;
  /** Aborts when the runner is closed. */
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal;

  constructor(identity: string, client: EndpointClient, model: string, signal: AbortSignal) {
    this.identity = identity;
    this.#client = client;
    this.#model = model;
    this.#signal = AbortSignal.any([signal, this.#closing.signal]);
  }

  async *answer(
    requests: readonly AnswerRequest[],
    signal: AbortSignal,
  ): AsyncGenerator<Answer, void> {
    const leaving = new AbortController();
    const either = AbortSignal.any([this.#signal, signal, leaving.signal]);
    const waiting = [...requests].reverse();
    const running = new Map<number, Promise<Answer>>();
    try {
      for (;;) {
        either.throwIfAborted();
        while (running.size < REQUESTS_AT_ONCE && waiting.length > 0) {
          const request = waiting.pop()!;
          running.set(request.index, this.#complete(request, either));
        }
        if (running.size === 0) return;
        const answer = await Promise.race(running.values());
        running.delete(answer.index);
        yield answer;
      }
    } finally {
      leaving.abort();
      await Promise.allSettled(running.values());
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new WeldlineError('evaluate.runner-failed', 'The runner was closed.'));
  }

  async #complete(request: AnswerRequest, signal: AbortSignal): Promise<Answer> {
    const { index, prompt, newTokensMax, addSpecialTokens } = request;
    const body = {
      ...{ model: this.#model, prompt, max_tokens: newTokensMax, temperature: 0, stream: true },
      // vLLM's. Others refuse fields that they do not know, so it is left out where it says nothing.
      ...(addSpecialTokens ? {} : { add_special_tokens: false }),
    };
    const text = await this.#client.request('/completions', body, this.#model, readText, signal);
    return { index, text };
  }
}

function readNames(text: string): string[] {
  const parsed = modelsSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new SyntaxError('does not list its models');
  return parsed.data.data.map(({ id }) => id);
}

/**
 * The text of server-sent events, or of one object from a server that does not stream.
 * @throws SyntaxError if it ends before the answer does
 */
function readText(body: string): string {
  const isStream = body.startsWith('data:') || body.startsWith(':');
  const events = isStream
    ? body
        .split(/\r?\n/)
        .flatMap((line) => (line.startsWith('data:') ? [line.slice(5).trim()] : []))
    : [body];
  let text = '';
  let isFinished = !isStream;
  for (const event of events) {
    if (event === '[DONE]') {
      isFinished = true;
      break;
    }
    const parsed = choicesSchema.safeParse(JSON.parse(event));
    if (!parsed.success)
      throw new SyntaxError(`answers what is no completion: ${event.slice(0, 200)}`);
    const [choice] = parsed.data.choices;
    text += choice?.text ?? '';
    if (choice?.finish_reason) isFinished = true;
  }
  if (!isFinished) throw new SyntaxError('breaks off in the middle of an answer');
  return text;
}
