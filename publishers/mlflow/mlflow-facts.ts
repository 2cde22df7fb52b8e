import type { Artefact, ArtefactId, FoundArtefact } from '../publisher.ts';
import type { ModelVersion, RunFacts, Tags } from './mlflow-client.ts';

/** Of a tag of a version, a run's tag and its parameter, by MLflow's own limits. */
const VALUE_LENGTH_MAX = 5000;
const KEY_LENGTH_MAX = 250;

/** Tags by which versions are found; the others are for people. */
export const TAG = {
  /** The target's model: the versions of all parts have it. */
  model: 'weldline.model',
  release: 'weldline.release',
  part: 'weldline.part',
  manifest: 'weldline.manifest_digest',
  plan: 'weldline.plan_digest',
  createdAt: 'weldline.created_at',
  name: 'weldline.name',
} as const;

export function idTags(model: string, { release, part }: ArtefactId): Tags {
  return {
    [TAG.model]: model,
    [TAG.release]: release,
    ...(part !== undefined && { [TAG.part]: part }),
  };
}

/** What people and programs see of a version in the registry. */
export function versionTags(model: string, artefact: Artefact): Tags {
  const { description } = artefact;
  const { run, gate, license, adapters, base, kind, version } = description;
  const tags: Tags = {
    ...idTags(model, artefact),
    [TAG.manifest]: artefact.manifestDigest,
    [TAG.plan]: artefact.planDigest,
    [TAG.createdAt]: description.createdAt,
    [TAG.name]: description.name,
    'weldline.version': version,
    'weldline.kind': kind,
    'weldline.base': base,
    'weldline.adapters': adapters.map(({ id, model: of }) => `${id}=${of}`).join(', '),
    'weldline.workflow_id': run.workflowId,
    'weldline.run_id': run.runId,
    ...(gate !== undefined && { 'weldline.gate': gate }),
    ...(license !== undefined && { 'weldline.license': license }),
  };
  return clipped(tags);
}

/** The run that a version comes from: its parameters and scores. */
export function runFacts(model: string, artefact: Artefact): RunFacts {
  const { base, adapters, labels, metrics, createdAt, kind, version } = artefact.description;
  const params = {
    ...labels,
    ...Object.fromEntries(adapters.map((adapter) => [`adapter.${adapter.id}`, adapter.model])),
    ...{ base, kind, version, plan_digest: artefact.planDigest },
  };
  const numbers = Object.entries(metrics).filter(([, value]) => Number.isFinite(value));
  return {
    name: artefact.release,
    atMs: Date.parse(createdAt) || 0,
    tags: { ...idTags(model, artefact), [TAG.manifest]: artefact.manifestDigest },
    params: clipped(params),
    metrics: Object.fromEntries(numbers.map(([name, value]) => [keyOf(name), value])),
  };
}

/** The artefact that a version stands for; undefined for a version that weldline did not make. */
export function artefactOf({ name, version, tags }: ModelVersion): FoundArtefact | undefined {
  const { [TAG.release]: release, [TAG.part]: part, [TAG.manifest]: manifestDigest } = tags;
  const { [TAG.plan]: planDigest, [TAG.createdAt]: createdAt, [TAG.name]: called } = tags;
  if (release === undefined || manifestDigest === undefined) return undefined;
  if (planDigest === undefined || createdAt === undefined) return undefined;
  const location = `models:/${name}/${version}`;
  return {
    ...{ release, manifestDigest, planDigest, createdAt, location, isPruned: false },
    ...(part !== undefined && { part }),
    ...(called !== undefined && { name: called }),
    // A version's source cannot be changed.
    pinned: location,
  };
}

function clipped(values: Tags): Tags {
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [keyOf(key), value.slice(0, VALUE_LENGTH_MAX)]),
  );
}

/** MLflow's keys have letters, digits and `_-. /`. */
function keyOf(name: string): string {
  return name.replace(/[^\w\-. /]/g, '_').slice(0, KEY_LENGTH_MAX) || '_';
}
