import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Runner } from '../../evaluation/runner.ts';
import { type OpenAiServer, startOpenAiServer } from './openai-server.ts';

/** Enough prompts for the gate to see a model that fails all of them. */
const PROMPTS = 40;

export interface ScriptedEndpoint extends OpenAiServer {
  /** Whether the merged model answers wrongly, as one that a bad adapter was merged into. */
  regressed: boolean;
  /** `evaluate` of a recipe whose adapter is called `tone`. */
  readonly evaluate: object;
}

/** A model server whose merged model can be made worse than its adapter on the base. */
export async function startScriptedEndpoint(directory: string): Promise<ScriptedEndpoint> {
  const data = join(directory, 'suite.jsonl');
  const lines = Array.from({ length: PROMPTS }, (_, n) => ({ prompt: `n${n}=`, expected: 'yes' }));
  await writeFile(data, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  const answering = (text: () => string): Runner => ({
    identity: 'scripted',
    async *answer(requests) {
      for (const { index } of requests) yield { index, text: text() };
    },
    async close() {},
  });
  const merged = answering(() => (endpoint.regressed ? 'no' : 'yes'));
  const server = await startOpenAiServer({
    models: { merged, plain: answering(() => 'no'), reference: answering(() => 'yes') },
  });
  const models = { base: 'plain', merged: 'merged', 'adapter:tone': 'reference' };
  const evaluate = {
    suites: [{ id: 'answers', data, max_new_tokens: 4 }],
    endpoint: { url: server.url, models },
  };
  const endpoint: ScriptedEndpoint = { ...server, regressed: false, evaluate };
  return endpoint;
}
