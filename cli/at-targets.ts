import { readEnvironment } from '../config/environment.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import { toWeldlineError } from '../engine/to-weldline-error.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import type { Publisher } from '../publishers/publisher.ts';
import { EXIT } from './exit-codes.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { usage } from './usage.ts';

/** What could not be done at one target. */
export interface TargetFailure {
  readonly target: string;
  readonly code: string;
  readonly message: string;
}

export interface AtTargetsOptions<P extends { readonly target: PublishTarget }> {
  readonly places: readonly P[];
  /** Names of the targets that are meant; all without them. */
  readonly only: readonly string[] | undefined;
  readonly output: Output;
  /** Does what is to be done at one target, and says so. */
  readonly work: (publisher: Publisher, place: P, signal: AbortSignal) => Promise<void>;
}

/**
 * Does something at one target after another. One that fails does not keep it from the others.
 * @throws WeldlineError `cli.usage` if a target is named that is none; what ends the command
 */
export async function atTargets<P extends { readonly target: PublishTarget }>(
  options: AtTargetsOptions<P>,
): Promise<readonly TargetFailure[]> {
  const { places, only, output, work } = options;
  const signal = interruptionSignal();
  const environment = readEnvironment();
  const opened = await Promise.all(
    places.map(async (place) => ({
      place,
      publisher: await createPublisher(place.target, environment),
    })),
  );
  const names = opened.map(({ publisher }) => publisher.name);
  const unknown = only?.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw usage(`There is no target ${unknown}; there are ${names.join(', ')}.`);
  }
  const failures: TargetFailure[] = [];
  for (const { place, publisher } of opened) {
    if (only !== undefined && !only.includes(publisher.name)) continue;
    try {
      await work(publisher, place, signal);
    } catch (error) {
      signal.throwIfAborted();
      const { code, message } = toWeldlineError(error);
      failures.push({ target: publisher.name, code, message });
      output.note(`error: ${message}\n  [${code}]`);
    }
  }
  return failures;
}

/**
 * What a person runs again once the causes are mended; nothing where all was done.
 * @param command the command without its targets
 */
export function tellLeft(
  failures: readonly TargetFailure[],
  command: readonly string[],
  output: Output,
): { readonly status: number; readonly left?: string } {
  if (failures.length === 0) return { status: EXIT.ok };
  const targets = failures.flatMap(({ target }) => ['--target', target]);
  const left = ['weldline', ...command, ...targets].map(quote).join(' ');
  output.note(`left to do, when that is mended: ${left}`);
  return { status: EXIT.failed, left };
}

function quote(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}
