import { WeldlineError } from '../../engine/errors.ts';
import type { ArtefactId } from '../publisher.ts';
import { nameOf } from './hub-answers.ts';

/** The hub's own limit for `org/name`. */
const REPO_CHARACTERS_MAX = 96;
/** Git servers keep refs as files, whose names have at most 255 bytes with what is behind them. */
const TAG_CHARACTERS_MAX = 240;

/** The repository of an artefact: conversions have one of their own. */
export function repoOf(base: string, part: string | undefined): string {
  return part === undefined ? base : `${base}-${part}`;
}

export function locationOf(repo: string, revision: string): string {
  return `${nameOf(repo)}@${encodeURIComponent(revision)}`;
}

/**
 * Checks that repository and tag can have the names that they would get.
 * @throws WeldlineError `publish.rejected`
 */
export function checkNames(base: string, { release, part }: ArtefactId): void {
  const repo = repoOf(base, part);
  const hasName = /^[\w.-]+\/[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?$/.test(repo);
  if (!hasName || /--|\.\./.test(repo) || repo.length > REPO_CHARACTERS_MAX) {
    throw rejected(`${repo} cannot be the name of a repository on the hub`, 'the target\'s "repo"');
  }
  // The rules of git.
  const isTag = /^(?!.*\.\.)(?!.*\.lock$)[A-Za-z0-9][\w.+-]*$/.test(release);
  if (!isTag || release.endsWith('.') || release.length > TAG_CHARACTERS_MAX) {
    throw rejected(`${release} cannot be the name of a tag`, '"version" or the names');
  }
}

function rejected(what: string, where: string): WeldlineError {
  return new WeldlineError('publish.rejected', `${what}. Change ${where} in the recipe.`);
}
