/** What servers do wrong. What they do right is in runners.test.ts, with a real model. */
import type { ServerResponse } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Secret } from '../../config/secret.ts';
import type { CandidateStep } from '../../evaluation/candidate.ts';
import { requireServedModels } from '../../evaluation/require-served-models.ts';
import type { Answer, Runner } from '../../evaluation/runner.ts';
import { startEndpointRunner } from '../../evaluation/runners/endpoint-runner.ts';
import { type OpenAiServer, startOpenAiServer } from '../harness/openai-server.ts';

const KEY = 'sk-very-secret';
const REQUEST = { index: 4, prompt: 'a', addSpecialTokens: true, newTokensMax: 5 };
const signal = new AbortController().signal;

/** It is never reached: these servers answer before. */
const NO_MODEL: Runner = {
  identity: 'none',
  answer: () => {
    throw new Error('asked');
  },
  close: async () => {},
};

type Intercept = (attempt: number, response: ServerResponse) => boolean;

async function serve(intercept: Intercept, names = ['m']): Promise<OpenAiServer> {
  const models = Object.fromEntries(names.map((name) => [name, NO_MODEL]));
  const server = await startOpenAiServer({ models, key: KEY, intercept });
  onTestFinished(() => server.close());
  return server;
}

async function ask(server: OpenAiServer, settings = {}, request = REQUEST): Promise<Answer[]> {
  const key = new Secret(KEY);
  const options = { url: server.url, model: 'm', key, pauseFirstMs: 20, ...settings };
  const runner = await startEndpointRunner(options);
  onTestFinished(() => runner.close());
  const answers: Answer[] = [];
  for await (const answer of runner.answer([request], signal)) answers.push(answer);
  return answers;
}

/** Answers once the first attempts failed in a way. */
function failing(times: number, fail: (response: ServerResponse) => void): Intercept {
  return (attempt, response) => {
    if (attempt <= times) fail(response);
    else
      response.end(
        'data: {"choices":[{"text":" yes","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
      );
    return true;
  };
}

function reply(status: number, body: string, headers = {}): (response: ServerResponse) => void {
  return (response) => response.writeHead(status, headers).end(body);
}

describe('an endpoint that fails for a while', () => {
  it.each<[string, (response: ServerResponse) => void]>([
    ['is busy', reply(429, 'slow down', { 'retry-after': '0' })],
    ['is busy until a date', reply(429, '', { 'retry-after': new Date().toUTCString() })],
    ['starts', reply(503, 'loading')],
    ['hangs up', (response) => response.destroy()],
    ['breaks off', reply(200, 'data: {"choices":[{"text":" y","finish_reason":null}]}\n\n')],
    ['breaks off in the middle of a line', reply(200, 'data: {"choices":[{"te')],
    ['sends nothing', reply(200, '')],
    ['is silent', () => {}],
    ['becomes silent', (response) => response.write('data: {"choices":[{"text":"a"}]}\n\n')],
  ])('is asked again: %s', async (_, fail) => {
    const server = await serve(failing(1, fail));
    expect(await ask(server, { stallTimeoutMs: 1500 })).toEqual([{ index: 4, text: ' yes' }]);
    expect(server.requests).toHaveLength(2);
  });

  it('gets the pause that it asks for', async () => {
    const server = await serve(failing(1, reply(429, '', { 'retry-after': '2' })));
    const started = Date.now();
    await ask(server);
    expect(Date.now() - started).toBeGreaterThanOrEqual(1900);
  });

  it('is given up in the end, with what it said', async () => {
    const server = await serve(failing(99, reply(429, 'quota', { 'retry-after': '0' })));
    const asking = ask(server);
    await expect(asking).rejects.toMatchObject({ code: 'evaluate.endpoint-failed' });
    await expect(asking).rejects.toThrow(/completions \(model "m"\) answers 429: quota, 6 times/);
  });
});

describe('an endpoint that refuses', () => {
  it('is quoted, with URL and model, and asked once', async () => {
    const body = JSON.stringify({ error: { message: `prompt too long, ${KEY}`, code: 400 } });
    const server = await serve(failing(99, reply(400, body)));
    const asking = ask(server);
    await expect(asking).rejects.toThrow(
      `The endpoint ${server.url}/completions (model "m") answers 400: prompt too long, [secret].`,
    );
    expect(server.requests).toHaveLength(1);
  });

  it('a key says where to put a better one, and not what it was', async () => {
    const server = await serve(failing(0, () => {}));
    const wrong = new Secret('sk-wrong');
    const error = await ask(server, { key: wrong }).catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: 'evaluate.endpoint-failed' });
    expect((error as Error).message).toMatch(/answers 401: .*\[secret\].*WELDLINE_ENDPOINT_KEY/);
    expect((error as Error).message).not.toContain('sk-wrong');
  });

  it('a model says which it has', async () => {
    const server = await serve(
      failing(0, () => {}),
      ['one', 'two'],
    );
    await expect(ask(server)).rejects.toThrow(/no model "m"\. It has one, two\. Correct evaluate/);
  });

  it('redirects is not followed', async () => {
    const server = await serve(failing(99, reply(302, '', { location: 'http://127.0.0.1:1/' })));
    await expect(ask(server)).rejects.toThrow(/answers 302/);
  });
});

describe('an endpoint', () => {
  it('that is not there is an error after some tries', async () => {
    const server = await serve(failing(0, () => {}));
    await server.close();
    await expect(ask(server)).rejects.toThrow(
      /models .* cannot be reached \(ECONNREFUSED\), 6 times/,
    );
  });

  it('is left at once when that is asked for, also in a pause', async () => {
    const server = await serve(failing(99, reply(429, '', { 'retry-after': '60' })));
    const runner = await startEndpointRunner({ url: server.url, model: 'm', key: new Secret(KEY) });
    const abort = new AbortController();
    const asking = runner.answer([REQUEST], abort.signal)[Symbol.asyncIterator]().next();
    await expect.poll(() => server.requests.length, { timeout: 30_000 }).toBe(1);
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 50);
    await expect(asking).rejects.toBe(reason);
  });

  it('may answer in one piece', async () => {
    const body = JSON.stringify({ choices: [{ text: ' no', finish_reason: 'length' }] });
    expect(await ask(await serve(failing(1, reply(200, body))))).toEqual([
      { index: 4, text: ' no' },
    ]);
  });

  it('is told where special tokens are in the prompt', async () => {
    const server = await serve(failing(0, () => {}));
    await ask(server, {}, { ...REQUEST, addSpecialTokens: false });
    expect(server.requests[0]).toMatchObject({ add_special_tokens: false });
  });

  it('that never stops is cut off', async () => {
    const endless = (response: ServerResponse): void => {
      const chunk = Buffer.alloc(1 << 20, 'x');
      const more = (): boolean => response.write(chunk);
      response.on('drain', more);
      more();
    };
    const answers = await ask(await serve(failing(1, endless)));
    expect(answers).toHaveLength(1);
  });
});

describe('models that are served before the merge', () => {
  const candidates: readonly CandidateStep[] = [
    { id: 'base', kind: 'base', runner: 'endpoint', suites: ['s'] },
    { id: 'adapter:tone', kind: 'adapter', runner: 'endpoint', suites: ['s'] },
    { id: 'merged', kind: 'merged', runner: 'endpoint', suites: ['s'] },
  ];
  const models = { base: 'plain', 'adapter:tone': 'tone', merged: 'later' };
  const key = new Secret(KEY);

  it('are asked for, but not what is made later', async () => {
    const { url } = await serve(() => false, ['plain', 'tone']);
    await requireServedModels({ candidates, endpoint: { url, models }, key });
  });

  it('are missed before the merge', async () => {
    const { url } = await serve(() => false, ['plain']);
    await expect(
      requireServedModels({ candidates, endpoint: { url, models }, key }),
    ).rejects.toMatchObject({
      code: 'evaluate.endpoint-failed',
      message: expect.stringContaining('has no model "tone"'),
    });
  });
});
