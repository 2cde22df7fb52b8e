import { existsSync, realpathSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { reportDirectory } from '../activities/workspace.ts';
import { artefactNamePattern } from '../config/artefact-name.ts';
import { type PublishTarget, TARGET_KINDS } from '../config/publish-schema.ts';
import { loadRecipe, type Recipe } from '../config/recipe.ts';
import { withVersion } from '../config/version-rule.ts';
import { toReadError } from '../engine/disk-errors.ts';
import { systemErrorCode, WeldlineError } from '../engine/errors.ts';
import type { FoundArtefact } from '../publishers/publisher.ts';
import { targetOfLocation } from '../publishers/target-of-location.ts';
import { possibleIds } from '../workflows/release-id.ts';
import { usage } from './usage.ts';

/** What is known of an artefact: all, if it was found, or only what an alias says. */
export type Candidate = Pick<FoundArtefact, 'release' | 'part'> &
  Partial<Pick<FoundArtefact, 'name' | 'location' | 'pinned'>>;

/** A target, and which of its artefacts are meant. */
export interface Place {
  readonly target: PublishTarget;
  readonly isMeant: (artefact: Candidate) => boolean;
  /** Whether a release is meant with all its parts, and not one part of it. */
  readonly isWhole: boolean;
}

export interface NamedReleases {
  /** For people: what was named. */
  readonly what: string;
  readonly places: readonly Place[];
}

/**
 * What a person names on the command line: a recipe (its name, its version, all its targets), where
 * an artefact is published, or the id of a release that ran on this machine.
 *
 * @param home of weldline, where reports are
 * @throws WeldlineError `recipe.*`, `release.not-found`, `cli.usage`, `publish.not-found`
 */
export async function findNamed(subject: string, home: string): Promise<NamedReleases> {
  if (/\.ya?ml$/.test(subject) || isFile(subject)) {
    const { recipe: written } = await loadRecipe(subject);
    const recipe = withVersion(written, new Date());
    const isMeant = isOfRecipe(recipe, recipe.version);
    const what = `${recipe.name} ${recipe.version}`;
    return {
      what,
      places: targetsOf(recipe, subject).map((target) => ({ target, isMeant, isWhole: true })),
    };
  }
  if (/[/\\]/.test(subject) || existsSync(subject)) return ofLocation(subject);
  return ofRelease(subject, home);
}

/** @throws WeldlineError `cli.usage` for a recipe that publishes nowhere */
export function targetsOf(recipe: Recipe, path: string): readonly PublishTarget[] {
  if (recipe.publish.length > 0) return recipe.publish;
  throw usage(`${path} names no targets under "publish", so nothing of it is published anywhere.`);
}

/** @param version undefined for all versions */
export function isOfRecipe(recipe: Recipe, version?: string): Place['isMeant'] {
  const adapter = recipe.adapters.map(({ id }) => id).join('-');
  const parts = { base: recipe.base.model, adapter, ...(version !== undefined && { version }) };
  const pattern = artefactNamePattern(parts);
  return ({ release, name = recipe.name }) => name === recipe.name && pattern.test(release);
}

function ofLocation(subject: string): NamedReleases {
  // An alias of a directory is a link: what it points at is meant.
  const isUri = /^[a-z][a-z0-9+.-]*:\/\//.test(subject);
  if (!isUri && !existsSync(subject)) {
    throw new WeldlineError('publish.not-found', `${resolve(subject)} does not exist.`);
  }
  const location = isUri ? subject.replace(/\/+$/, '') : realpathSync(subject);
  const found = targetOfLocation(location);
  if (found === undefined) {
    throw usage(
      `"${subject}" is no place of a published artefact. Name a recipe, the id of a release, a ` +
        'directory, s3://bucket/prefix/name, oci://registry/repository:tag or hf://org/name@tag.',
    );
  }
  const isMeant = (artefact: Candidate): boolean =>
    artefact.location === location || artefact.pinned === location;
  return { what: location, places: [{ target: found.target, isMeant, isWhole: false }] };
}

/** What the report of a release says of where it was published. */
async function ofRelease(id: string, home: string): Promise<NamedReleases> {
  if (!/^[\w.-]+$/.test(id)) throw usage(`"${id}" is no id of a release.`);
  for (const candidate of possibleIds(id)) {
    const path = join(reportDirectory(home, candidate), 'report.json');
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw toReadError(error, path);
    });
    if (text === undefined) continue;
    const { artefact, targets } = readReport(text);
    if (artefact === undefined || targets.length === 0) {
      throw new WeldlineError('release.not-found', `${path} names nothing that was published.`);
    }
    const isMeant = ({ release }: Candidate): boolean => release === artefact;
    return {
      what: candidate,
      places: targets.map((target) => ({ target, isMeant, isWhole: true })),
    };
  }
  throw new WeldlineError(
    'release.not-found',
    `There is no report of a release ${id} below ${join(home, 'reports')}. Name the recipe that it ` +
      'was made with, or where it is published.',
  );
}

interface Report {
  readonly artefact?: unknown;
  /** Of the recipe. */
  readonly targets?: unknown;
  readonly publications?: unknown;
}

/** Members of a report: `{artefact, targets: [PublishTarget], publications: [{location}]}`. */
function readReport(text: string): { artefact?: string; targets: readonly PublishTarget[] } {
  let report: Report;
  try {
    report = JSON.parse(text) as Report;
  } catch {
    return { targets: [] };
  }
  const { artefact, targets, publications } = report;
  if (typeof artefact !== 'string') return { targets: [] };
  if (Array.isArray(targets)) return { artefact, targets: targets.filter(isTarget) };
  // Reports of earlier versions name directories only.
  const locations = Array.isArray(publications) ? (publications as { location?: unknown }[]) : [];
  const found = locations.map(({ location }) => targetOfLocation(String(location))?.target);
  const texts = new Set(
    found.filter((target) => target !== undefined).map((t) => JSON.stringify(t)),
  );
  return { artefact, targets: [...texts].map((target) => JSON.parse(target) as PublishTarget) };
}

function isTarget(value: unknown): value is PublishTarget {
  if (typeof value !== 'object' || value === null) return false;
  return TARGET_KINDS.some((kind) => kind in value);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}
