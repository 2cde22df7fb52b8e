import { z } from 'zod';
import type { AliasState } from '../publisher.ts';
import type { MlflowClient, RegisteredModel } from './mlflow-client.ts';

/** MLflow has a meaning of its own for these: its newest version, and a version by number. */
const RESERVED = /^(latest|v\d+)$/i;
const PREFIX = 'weldline-';
const TAG_PREFIX = 'weldline.alias.';

const states = z.array(z.object({ release: z.string(), history: z.array(z.string()) }));

/** What an alias of weldline is called in MLflow: `weldline-latest` for `latest`. */
export function mlflowAlias(alias: string): string {
  return RESERVED.test(alias) ? PREFIX + alias : alias;
}

/** The other way round. */
export function weldlineAlias(alias: string): string {
  const bare = alias.startsWith(PREFIX) ? alias.slice(PREFIX.length) : alias;
  return mlflowAlias(bare) === alias ? bare : alias;
}

/** The history of an alias while it points at a release; none if weldline did not point it there. */
export function historyAt(model: RegisteredModel, alias: string, release: string) {
  const text = model.tags[TAG_PREFIX + alias];
  if (text === undefined) return [];
  try {
    const found = states.parse(JSON.parse(text)).find((state) => state.release === release);
    return found?.history ?? [];
  } catch {
    return [];
  }
}

/**
 * Moves an alias. MLflow moves it in one request and keeps no history. So the histories of where it
 * is and of where it shall be are both noted before, by release: whoever reads in between, or after a
 * failure, finds the one that belongs to what the alias points at.
 */
export async function writeAlias(
  client: MlflowClient,
  name: string,
  move: {
    readonly alias: string;
    readonly version: number;
    readonly now: AliasState | undefined;
    readonly next: AliasState;
  },
  signal: AbortSignal,
): Promise<void> {
  const { alias, version, now, next } = move;
  const noted = [next, ...(now === undefined ? [] : [now])];
  await client.setTag(name, TAG_PREFIX + alias, JSON.stringify(noted), signal);
  await client.setAlias(name, mlflowAlias(alias), version, signal);
}
