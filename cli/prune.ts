import { readEnvironment } from '../config/environment.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import { loadRecipe } from '../config/recipe.ts';
import { createPublisher } from '../publishers/create-publisher.ts';
import { decidePrune, newestFirst, type PruneDecision } from '../publishers/prune-policy.ts';
import type { Publisher } from '../publishers/publisher.ts';
import { atTargets, tellLeft } from './at-targets.ts';
import { formatBytes, formatTable } from './format.ts';
import { interruptionSignal } from './interruption.ts';
import { isOfRecipe, targetsOf } from './named-releases.ts';
import type { Output } from './output.ts';
import { pruneWorkspace } from './prune-workspace.ts';
import { tellBytes } from './tell-bytes.ts';
import { usage } from './usage.ts';

export interface PruneCommand {
  readonly keep?: string;
  readonly keepDays?: string;
  readonly target?: readonly string[];
  readonly workspace?: boolean;
  readonly yes?: boolean;
}

/** So many releases keep their weights where nobody says otherwise. */
const KEEP_DEFAULT = 3;
/** A release may wait for a person for weeks; after that its files are made again if need be. */
const WORKSPACE_DAYS_DEFAULT = 30;

interface Pruned {
  readonly target: string;
  readonly location: string;
  readonly release: string;
  readonly part?: string;
  readonly bytes: number;
}

/** `weldline prune`: removes weights of old releases, or old files of the workspace. */
export async function runPrune(
  recipePath: string | undefined,
  options: PruneCommand,
  output: Output,
): Promise<number> {
  const keepDays = readCount('--keep-days', options.keepDays);
  if (options.workspace === true) {
    if (recipePath !== undefined || options.keep !== undefined || options.target !== undefined) {
      throw usage('--workspace takes --keep-days and --yes alone: it is about all releases.');
    }
    const { home } = readEnvironment();
    const days = keepDays ?? WORKSPACE_DAYS_DEFAULT;
    return pruneWorkspace({ home, keepDays: days, isDryRun: options.yes !== true }, output);
  }
  if (recipePath === undefined) throw usage('Name a recipe, or say --workspace.');
  return pruneTargets(recipePath, keepDays, options, output);
}

async function pruneTargets(
  recipePath: string,
  keepDays: number | undefined,
  options: PruneCommand,
  output: Output,
): Promise<number> {
  const keep = readCount('--keep', options.keep) ?? KEEP_DEFAULT;
  if (keep === 0) throw usage('--keep is at least 1: the newest release keeps its weights.');
  const { recipe } = await loadRecipe(recipePath);
  const isMeant = isOfRecipe(recipe);
  const isDryRun = options.yes !== true;
  const targets = targetsOf(recipe, recipePath);
  const pointing = await aliasesOfReferences(targets);
  const pruned: Pruned[] = [];
  const kept: object[] = [];
  const work = async (publisher: Publisher, _place: unknown, signal: AbortSignal) => {
    if (publisher.prune === undefined) {
      if (publisher.holds === 'files')
        output.note(`${publisher.name}: nothing can be pruned there`);
      return;
    }
    const artefacts = await publisher.list(signal);
    const own = artefacts.filter(isMeant).sort(newestFirst);
    const aliases = [...(await publisher.listAliases(signal)), ...pointing];
    const named = own.filter(({ name }) => name !== undefined);
    const decisions = decidePrune(named, aliases, { keep, keepDays, nowMs: Date.now() });
    const rows: string[][] = [];
    for (const { location, name } of own) {
      if (name === undefined)
        rows.push(['', 'keep', location, 'does not say of which recipe it is']);
    }
    for (const decision of decisions) {
      const { location, release, part } = decision.artefact;
      const place = { target: publisher.name, location, release, ...(part && { part }) };
      if (!decision.isPruned) {
        kept.push({ ...place, why: decision.kept });
        rows.push(['', 'keep', location, reasonText(decision)]);
        continue;
      }
      const bytes = await publisher.prune(decision.artefact, { signal, isDryRun });
      // An adapter that was converted has no weights that could be made again.
      if (bytes === 0) continue;
      pruned.push({ ...place, bytes });
      rows.push(['', isDryRun ? 'would prune' : 'pruned', location, formatBytes(bytes)]);
    }
    output.line(publisher.name);
    output.line(rows.length === 0 ? '  no release of this recipe' : formatTable(rows));
  };
  const places = targets.map((target) => ({ target }));
  const failures = await atTargets({ places, only: options.target, output, work });
  const bytes = pruned.reduce((sum, each) => sum + each.bytes, 0);
  tellBytes(bytes, isDryRun, output);
  const limits = keepDays === undefined ? [] : ['--keep-days', String(keepDays)];
  const flags = ['--keep', String(keep), ...limits, ...(isDryRun ? [] : ['--yes'])];
  const command = ['prune', recipePath, ...flags];
  const { status, left } = tellLeft(failures, command, output);
  output.result({ isDryRun, bytes, pruned, kept, failures, ...(left && { left }) });
  return status;
}

/**
 * Aliases of targets that only point at what others hold: its weights are theirs. Where they cannot
 * be asked, nothing may be pruned.
 */
async function aliasesOfReferences(targets: readonly PublishTarget[]) {
  const signal = interruptionSignal();
  const environment = readEnvironment();
  const all = targets.map(async (target) => {
    const publisher = await createPublisher(target, environment);
    return publisher.holds === 'references' ? publisher.listAliases(signal) : [];
  });
  return (await Promise.all(all)).flat();
}

function reasonText({ kept }: PruneDecision): string {
  const texts = {
    aliased: 'an alias points at it',
    'before-alias': 'an alias pointed at it before, and can be rolled back',
    newest: 'among the newest',
    young: 'young',
    pruned: 'pruned already',
    undated: 'nobody knows how old it is',
  };
  return kept === undefined ? '' : texts[kept];
}

function readCount(option: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,6}$/.test(value)) return Number(value);
  throw usage(`${option} is "${value}", and must be a whole number.`);
}
