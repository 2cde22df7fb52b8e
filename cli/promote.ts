import { readEnvironment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { type AliasChange, promote, rollBack } from '../publishers/alias-moves.ts';
import { newestFirst } from '../publishers/prune-policy.ts';
import {
  type ArtefactId,
  artefactNameOf,
  type FoundArtefact,
  type Publisher,
} from '../publishers/publisher.ts';
import { atTargets, tellLeft } from './at-targets.ts';
import { EXIT } from './exit-codes.ts';
import { findNamed, type Place } from './named-releases.ts';
import type { Output } from './output.ts';
import { usage } from './usage.ts';

export interface AliasCommand {
  readonly target?: readonly string[];
}

type Change = AliasChange & { readonly target: string };

/** `weldline promote`: points an alias at a release, with all its parts, at each of its targets. */
export async function runPromote(
  subject: string,
  alias: string,
  options: AliasCommand,
  output: Output,
): Promise<number> {
  const changes: Change[] = [];
  const { what, failures } = await moveAtTargets(
    { subject, alias, options, output },
    async (publisher, place, signal, what) => {
      const artefacts = await artefactsOf(publisher, place, signal);
      for (const artefact of artefacts) {
        const change = await promote(publisher, artefact, alias, signal);
        changes.push(tell(publisher, change, output));
      }
      if (!place.isWhole) return;
      for (const { part, release, ...other } of await publisher.listAliases(signal)) {
        if (other.alias !== alias || artefacts.some((artefact) => artefact.part === part)) continue;
        // Whoever asks for this part goes on getting an earlier release.
        output.warn(
          `${publisher.name}: ${aliasText(alias, part)} stays ${release}: ${what} has no such part there`,
        );
      }
    },
  );
  const { status, left } = tellLeft(failures, ['promote', subject, alias], output);
  output.result({ alias, release: what, changes, failures, ...(left && { left }) });
  return status;
}

/** `weldline rollback`: points an alias back from a release to the one before, at each target. */
export async function runRollback(
  subject: string,
  alias: string,
  options: AliasCommand,
  output: Output,
): Promise<number> {
  const changes: Change[] = [];
  const { what, failures } = await moveAtTargets(
    { subject, alias, options, output },
    async (publisher, place, signal) => {
      const aliases = await publisher.listAliases(signal);
      const named = aliases.filter((each) => each.alias === alias);
      if (named.length === 0) {
        throw new WeldlineError(
          'publish.not-found',
          `There is no alias ${alias} at ${publisher.name}. Make it with weldline promote.`,
        );
      }
      const left = new Set<string>();
      for (const { part, release } of named) {
        const id = { release, ...(part && { part }) };
        if (place.isMeant((await publisher.find(id, signal)) ?? id)) left.add(artefactNameOf(id));
      }
      refuseSeveral(
        publisher,
        alias,
        named.filter((each) => left.has(artefactNameOf(each))),
      );
      for (const each of named) {
        const { part } = each;
        const isLeft = left.has(artefactNameOf(each));
        const change = await rollBack(publisher, { alias, part }, () => isLeft, signal);
        changes.push(tell(publisher, change, output));
      }
    },
  );
  const isDone = failures.length > 0 || changes.some(({ isMoved }) => isMoved);
  if (!isDone) {
    output.note(
      `${alias} points at no release of ${what}: nothing was rolled back. A recipe with {date} in its ` +
        'version means today in UTC; name the release for another day.',
    );
  }
  const { status, left } = tellLeft(failures, ['rollback', subject, alias], output);
  output.result({ alias, release: what, changes, failures, ...(left && { left }) });
  return isDone ? status : EXIT.failed;
}

/** One recipe can have made several of one version, of other adapters: which is to be left? */
function refuseSeveral(publisher: Publisher, alias: string, left: readonly ArtefactId[]): void {
  if (new Set(left.map(({ release }) => release)).size < 2) return;
  const places = left.map((id) => `  ${aliasText(alias, id.part)} is ${id.release}`).join('\n');
  throw usage(`Several releases at ${publisher.name} are meant; name one by its place:\n${places}`);
}

interface AliasMoves {
  readonly subject: string;
  readonly alias: string;
  readonly options: AliasCommand;
  readonly output: Output;
}

async function moveAtTargets(
  { subject, alias, options, output }: AliasMoves,
  work: (publisher: Publisher, place: Place, signal: AbortSignal, what: string) => Promise<void>,
) {
  if (!/^[a-z][a-z0-9-]{0,49}$/.test(alias)) {
    throw usage(
      `"${alias}" is no alias. One begins with a small letter, and has small letters, digits and ` +
        '"-" behind it: latest, production.',
    );
  }
  const { what, places } = await findNamed(subject, readEnvironment().home);
  const failures = await atTargets({
    ...{ places, only: options.target, output },
    work: (publisher, place, signal) => work(publisher, place, signal, what),
  });
  return { what, failures };
}

/** All parts of the release that are there, with their weights. */
async function artefactsOf(
  publisher: Publisher,
  { isMeant }: Place,
  signal: AbortSignal,
): Promise<readonly FoundArtefact[]> {
  const found = (await publisher.list(signal)).filter(isMeant).sort(newestFirst);
  const whole = found.filter(({ isPruned }) => !isPruned);
  const releases = [...new Set(whole.map(({ release }) => release))];
  if (releases.length === 1) return whole;
  if (releases.length > 1) {
    const locations = whole.map(({ location }) => `  ${location}`).join('\n');
    throw usage(
      `Several releases at ${publisher.name} are meant; name one by its place:\n${locations}`,
    );
  }
  const why = found.length > 0 ? 'the weights of the release were pruned' : 'it is not published';
  throw new WeldlineError(
    'publish.not-found',
    `At ${publisher.name} ${why}. Publish it first: weldline release.`,
  );
}

function aliasText(alias: string, part: string | undefined): string {
  return part === undefined ? alias : `${alias} of ${part}`;
}

function tell(publisher: Publisher, change: AliasChange, output: Output): Change {
  const { alias, part, from, to, isMoved } = change;
  const what = aliasText(alias, part);
  const before = from === undefined ? '' : `, was ${from}`;
  output.line(`${publisher.name}: ${what} ${isMoved ? `is ${to}${before}` : `stays ${to}`}`);
  return { target: publisher.name, ...change };
}
