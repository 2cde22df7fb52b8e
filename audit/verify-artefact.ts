import type { Trust } from '../attest/model-signature.ts';
import type { Manifest } from '../engine/manifest.ts';
import type { Plan } from '../engine/plan/plan.ts';
import { readCheckpoint } from '../engine/safetensors/checkpoint.ts';
import { verifyTensors } from '../engine/verify/verify-merge.ts';
import type { FetchProgress } from '../sources/fetch-blobs.ts';
import type { ModelAccess } from '../sources/model-input.ts';
import { withArchive } from './archived-adapters.ts';
import { artefactDigests, type FoundFile, type ReadOptions } from './artefact-digests.ts';
import { type ArtefactRecord, readRecord } from './artefact-record.ts';
import { checkAdapters } from './check-adapters.ts';
import { checkBom, checkProvenance } from './check-documents.ts';
import { checkFiles, wasPruned } from './check-files.ts';
import { checkManifest } from './check-manifest.ts';
import { checkSignature } from './check-signature.ts';
import { type Claim, checkClaim, type Finding, failed, notChecked, verified } from './claim.ts';
import { findInputs } from './find-inputs.ts';
import { type OpenedArtefact, openArtefact } from './open-artefact.ts';
import { planAgain } from './plan-again.ts';

export interface VerifyArtefactOptions extends ReadOptions {
  readonly access: ModelAccess;
  /** A path or a URI. */
  readonly target: string;
  /** Whose signature is asked for. */
  readonly trust?: Trust | undefined;
  /** Where the base is: a path or a URI. */
  readonly base?: string | undefined;
  /** Whether a base that is not on this machine is brought here. */
  readonly mayFetch: boolean;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
}

export interface VerifiedArtefact {
  readonly target: string;
  /** Of its release; absent for what was never published. */
  readonly artefact?: string;
  readonly claims: readonly Claim[];
}

interface Subject {
  readonly artefact: OpenedArtefact;
  readonly record: ArtefactRecord;
  readonly found: ReadonlyMap<string, FoundFile>;
  /** Whether weights are missing because pruning removed them. */
  readonly isPruned: boolean;
}

/**
 * Checks everything that an artefact says of itself and that can be checked from here: a release or a
 * part of one, wherever it was published, or a merge or conversion that nobody published.
 * @throws WeldlineError `manifest.invalid` for what is none of these; what reading throws
 */
export async function verifyArtefact(options: VerifyArtefactOptions): Promise<VerifiedArtefact> {
  const artefact = await openArtefact(options.access, options.target, options.signal);
  const record = await readRecord(artefact);
  const found = await artefactDigests(artefact, options);
  const isPruned = record.files.some(({ path }) => wasPruned(path, found));
  const subject: Subject = { artefact, record, found, isPruned };
  const inputs = record.release?.inputs ?? record.merge?.inputs ?? [];
  const claims = [
    await checkClaim('files', async () => checkFiles(record, found)),
    await checkClaim('manifest', async () => checkManifest(record)),
    await checkClaim('tensors', () => checkTensors(subject)),
    await checkClaim('provenance', () => checkProvenance(subject)),
    await checkClaim('bom', () => checkBom(subject)),
    await checkClaim('signature', () => checkSignature(artefact, found, options.trust)),
    await checkClaim('adapters', async () => checkAdapters(inputs, found)),
  ];
  const isSound = claims.every(({ status }) => status !== 'failed');
  claims.push(...(await checkMerge(subject, options, isSound)));
  return {
    target: artefact.name,
    ...(record.release && { artefact: record.release.artefact }),
    claims,
  };
}

async function checkTensors({ artefact, record, isPruned }: Subject): Promise<Finding> {
  const { merge, conversion } = record;
  if (conversion !== undefined) return notChecked('a conversion is checked by its digests');
  if (isPruned) return notChecked('the weights were pruned');
  if (merge === undefined) return notChecked('there is no manifest of a merge');
  const { size } = (await readCheckpoint(artefact.files)).tensors;
  return size === merge.tensors.total
    ? verified(`${size} tensors, as many as were planned`)
    : failed(
        'verify.inventory-mismatch',
        `it holds ${size} tensors, and ${record.manifestFile} says ${merge.tensors.total}`,
      );
}

/** Whether the inputs give the plan, and the plan the values. */
async function checkMerge(
  subject: Subject,
  options: VerifyArtefactOptions,
  isSound: boolean,
): Promise<Claim[]> {
  const { merge } = subject.record;
  const unchecked = (why: string): Claim[] => [
    { claim: 'plan', ...notChecked(why) },
    { claim: 'rows', ...notChecked(why) },
  ];
  if (merge === undefined) return unchecked('the manifest of the merge is not part of it');
  if (!isSound) return unchecked('what it would be worked out from is not as it was');
  // Before adapters are brought here: without a base they are of no use.
  const base = await checkClaim('plan', async () => {
    const inputs = merge.inputs.filter(({ id }) => id === 'base');
    const { missing } = await findInputs({ ...options, inputs, archived: {} });
    return missing.length > 0 ? notChecked(missing.join('; ')) : verified('the base is here');
  });
  if (base.status !== 'verified') return [base, unplanned()];
  return withArchive(subject.artefact, merge, options, (archived) =>
    checkPlanAndRows(subject, merge, archived, options),
  );
}

async function checkPlanAndRows(
  subject: Subject,
  merge: Manifest,
  archived: Readonly<Record<string, string>>,
  options: VerifyArtefactOptions,
): Promise<Claim[]> {
  let plan: Plan | undefined;
  let roots: Readonly<Record<string, string>> = {};
  const planned = await checkClaim('plan', async () => {
    const inputs = await findInputs({ ...options, inputs: merge.inputs, archived });
    if (inputs.missing.length > 0) return notChecked(inputs.missing.join('; '));
    roots = inputs.roots;
    plan = await planAgain(merge, roots);
    return verified(`base and adapters give the plan ${merge.plan.slice(0, 16)}…`);
  });
  if (plan === undefined) return [planned, unplanned()];
  const made: Plan = plan;
  return [planned, await checkClaim('rows', () => checkRows(subject, made, roots, options.signal))];
}

function unplanned(): Claim {
  return { claim: 'rows', ...notChecked('it takes the plan') };
}

async function checkRows(
  { artefact, record, isPruned }: Subject,
  plan: Plan,
  roots: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Finding> {
  if (record.conversion !== undefined) return notChecked('a conversion holds other numbers');
  if (isPruned) return notChecked('the weights were pruned');
  const { rows, worst } = await verifyTensors({ plan, roots }, { files: artefact.files, signal });
  return verified(
    `${rows} sampled rows are what base and adapters give, to ${worst.toFixed(3)} of a rounding`,
  );
}
