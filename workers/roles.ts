import type { Role } from '../activities/types.ts';
import type { WorkerEnvironment } from '../config/worker-environment.ts';
import { WeldlineError } from '../engine/errors.ts';

export const ROLES: readonly Role[] = ['control', 'merge', 'convert', 'gpu'];

/**
 * The roles that somebody asked for; all where they asked for none.
 * @throws WeldlineError `cli.usage` for one that does not exist, or that this host cannot do alone
 */
export function readRoles(
  names: readonly string[],
  { storage, host }: Pick<WorkerEnvironment, 'storage' | 'host'>,
): readonly Role[] {
  const unknown = names.find((name) => !ROLES.some((role) => role === name));
  if (unknown !== undefined) {
    throw new WeldlineError(
      'cli.usage',
      `There is no role "${unknown}". The roles of workers are ${ROLES.join(', ')}.`,
    );
  }
  const roles = ROLES.filter((role) => names.length === 0 || names.includes(role));
  if (storage === 'local' && roles.length < ROLES.length) {
    throw new WeldlineError(
      'cli.usage',
      `With WELDLINE_STORAGE=local the host ${host} does its releases alone, from beginning to end: ` +
        'its worker has all roles. Leave --role away, or let all workers share their storage.',
    );
  }
  return roles;
}
