import type { PlannedTarget } from '../activities/check-targets.ts';
import type { PublishTarget } from '../config/publish-schema.ts';
import type { Recipe } from '../config/recipe.ts';
import { formatTable } from './format.ts';
import type { Output } from './output.ts';

/** What goes where, for people. */
export function printTargets(
  targets: readonly PlannedTarget[],
  sign: Recipe['sign'],
  output: Output,
): void {
  const rows = targets.map(({ target, parts }) => {
    const { aliases = [] } = target;
    const moved = aliases.length === 0 ? '' : `moves ${aliases.join(', ')}`;
    return ['', ...placeOf(target), parts.join(', '), moved];
  });
  output.line();
  output.line(rows.length === 0 ? 'published nowhere' : 'published');
  if (rows.length > 0) output.line(formatTable(rows));
  const how = { key: 'with a key', keyless: 'by the identity of the job' };
  if (sign !== undefined) output.line(`signed ${how[sign]}`);
}

function placeOf(target: PublishTarget): readonly [kind: string, place: string] {
  if ('directory' in target) return ['directory', target.directory.path];
  if ('hub' in target) return ['hub', target.hub.repo];
  if ('oci' in target) return ['oci', target.oci.repository];
  if ('ollama' in target) return ['ollama', target.ollama.model];
  if ('mlflow' in target) return ['mlflow', target.mlflow.model];
  const { bucket, prefix, stream } = target.s3;
  const place = prefix === undefined ? bucket : `${bucket}/${prefix}`;
  return ['s3', stream === true ? `${place}, as it is merged` : place];
}
