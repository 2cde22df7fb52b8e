import { z } from 'zod';
import { WeldlineError } from '../engine/errors.ts';
import { problemsOf } from '../engine/schema-problems.ts';
import { STATEMENT_TYPE } from './envelope.ts';
import {
  BUILD_TYPE,
  BUILDER_ID,
  MERGED_NAME,
  modelId,
  PROVENANCE_FILE,
  PROVENANCE_TYPE,
} from './provenance-terms.ts';
import type { SignedFile } from './signed-files.ts';

/** What a provenance claims. */
export interface Provenance {
  readonly artefact: string;
  readonly version: string;
  /** The files it is about. */
  readonly subjects: readonly SignedFile[];
  readonly recipe: { readonly name: string; readonly sha256: string; readonly document: unknown };
  /** SHA-256 of the merge plan. */
  readonly plan: string;
  readonly options: Readonly<Record<string, string | number>>;
  readonly engine: { readonly version: string; readonly format: number };
  /** The base first, then the adapters. */
  readonly models: readonly ClaimedModel[];
  /** Of a conversion: the digest of the manifest of the checkpoint it was made of. */
  readonly madeOf?: string;
  readonly run: {
    readonly workflowId: string;
    readonly runId: string;
    /** RFC 3339, UTC. */
    readonly startedOn: string;
    readonly finishedOn: string;
  };
}

export interface ClaimedModel {
  /** `base`, or the adapter's id. */
  readonly id: string;
  /** As the manifest names it. */
  readonly model: string;
  readonly uri?: string;
  /** Of a hub. */
  readonly commit?: string;
  readonly trainingRun?: string;
  readonly files: readonly SignedFile[];
}

/** A list of a hundred thousand files has a tenth of this. */
const CHARACTERS_MAX = 64 * 1024 * 1024;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'is no SHA-256 in small letters');
const commit = z.string().regex(/^[0-9a-f]{40}([0-9a-f]{24})?$/, 'is no commit in small letters');
const digestSet = z
  .strictObject({ sha256: sha256.optional(), gitCommit: commit.optional() })
  .refine((set) => Object.keys(set).length > 0, 'is empty');
const time = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'is no time in UTC');

const dependency = z.object({
  name: z.string().min(1),
  uri: z.string().optional(),
  digest: digestSet.optional(),
  annotations: z.object({
    role: z.enum(['base', 'adapter', 'file', 'checkpoint', 'tool']),
    model: z.string().optional(),
    trainingRun: z.string().optional(),
  }),
});
type Dependency = z.infer<typeof dependency>;

const statementSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: z
    .array(z.strictObject({ name: z.string().min(1), digest: z.strictObject({ sha256 }) }))
    .min(1)
    .refine(haveOwnNames, 'two have one name'),
  predicateType: z.literal(PROVENANCE_TYPE),
  predicate: z.object({
    buildDefinition: z.object({
      buildType: z.literal(BUILD_TYPE),
      externalParameters: z.object({ recipe: z.unknown() }),
      internalParameters: z.object({
        artefact: z.string(),
        version: z.string(),
        recipe: z.object({ name: z.string(), sha256 }),
        plan: sha256,
        options: z.record(z.string(), z.union([z.string(), z.number()])),
        engineFormat: z.number().int(),
      }),
      resolvedDependencies: z
        .array(dependency)
        .refine(haveOwnNames, 'two have one name')
        .refine(
          (all) => all.every(({ uri, digest }) => uri !== undefined || digest !== undefined),
          'one has neither a URI nor a digest',
        ),
    }),
    runDetails: z.object({
      builder: z.object({
        id: z.literal(BUILDER_ID),
        version: z.object({ weldline: z.string() }),
      }),
      metadata: z.object({
        invocationId: z.string().regex(/^.+\/[^/]+$/s, 'is no workflow and run'),
        startedOn: time,
        finishedOn: time,
      }),
    }),
  }),
});

function haveOwnNames(descriptors: readonly { readonly name: string }[]): boolean {
  return new Set(descriptors.map(({ name }) => name)).size === descriptors.length;
}

/**
 * Reads a provenance that weldline wrote, by rules that are stricter than SLSA's: digests in full
 * and in small letters, no two subjects or dependencies of one name, times in UTC.
 * @throws WeldlineError `attest.document-invalid`
 */
export function parseProvenance(text: string): Provenance {
  const { subject, predicate } = check(text);
  const { buildDefinition, runDetails } = predicate;
  const { internalParameters: internal, resolvedDependencies: dependencies } = buildDefinition;
  const { invocationId, startedOn, finishedOn } = runDetails.metadata;
  const slash = invocationId.lastIndexOf('/');
  const madeOf = dependencies.find(({ name }) => name === MERGED_NAME)?.digest?.sha256;
  return {
    artefact: internal.artefact,
    version: internal.version,
    subjects: subject.map(({ name, digest }) => ({ path: name, sha256: digest.sha256 })),
    recipe: { ...internal.recipe, document: buildDefinition.externalParameters.recipe },
    plan: internal.plan,
    options: internal.options,
    engine: { version: runDetails.builder.version.weldline, format: internal.engineFormat },
    models: modelsOf(dependencies),
    ...(madeOf !== undefined && { madeOf }),
    run: {
      workflowId: invocationId.slice(0, slash),
      runId: invocationId.slice(slash + 1),
      ...{ startedOn, finishedOn },
    },
  };
}

function modelsOf(dependencies: readonly Dependency[]): ClaimedModel[] {
  const files = dependencies.filter(({ annotations }) => annotations.role === 'file');
  return dependencies.flatMap(({ name, uri, digest, annotations }) => {
    const { role, model, trainingRun } = annotations;
    if (role !== 'base' && role !== 'adapter') return [];
    return [
      {
        id: modelId(name),
        model: model ?? name,
        ...(uri !== undefined && { uri }),
        ...(digest?.gitCommit !== undefined && { commit: digest.gitCommit }),
        ...(trainingRun !== undefined && { trainingRun }),
        files: files.flatMap((file) =>
          file.name.startsWith(`${name}/`) && file.digest?.sha256 !== undefined
            ? [{ path: file.name.slice(name.length + 1), sha256: file.digest.sha256 }]
            : [],
        ),
      },
    ];
  });
}

function check(text: string): z.infer<typeof statementSchema> {
  if (text.length > CHARACTERS_MAX) throw invalid(`it has ${text.length} characters`);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid('it is no JSON', error);
  }
  const parsed = statementSchema.safeParse(document);
  if (!parsed.success) throw invalid(problemsOf(parsed.error));
  return parsed.data;
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'attest.document-invalid',
    `${PROVENANCE_FILE} is no provenance of a release: ${problem}. Fetch it again from where the ` +
      'release was published.',
    { cause },
  );
}
