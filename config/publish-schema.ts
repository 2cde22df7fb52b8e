import { z } from 'zod';

/** The `publish` and `sign` keys of a recipe, as they are written. */

/** Far above any real list of targets; keeps a release's fan-out bounded. */
const PUBLISH_TARGETS_MAX = 20;
const ALIASES_MAX = 10;

/** By target, what its mapping may hold; exactly one stands in each entry of the list. */
export const TARGET_KINDS = ['directory', 'hub', 's3', 'oci', 'ollama', 'mlflow'] as const;

const URL_LENGTH_MAX = 2048;

const endpoint = z
  .string()
  .max(URL_LENGTH_MAX)
  .refine(isPlainUrl, {
    message: 'expected a URL such as http://127.0.0.1:9000, without a password',
  })
  .describe('the URL of the server, without a password');

function isPlainUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  const isBare = username === '' && password === '' && search === '' && hash === '';
  return isBare && (protocol === 'http:' || protocol === 'https:');
}

const directory = z
  .strictObject({ path: z.string().min(1).max(4096).describe('the path of a directory') })
  .describe('a mapping {path}');

const hub = z
  .strictObject({
    repo: z
      .string()
      .max(96)
      .regex(/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/)
      .describe('the name of a hub repository: org/name (conversions go to org/name-<conversion>)'),
    private: z.boolean().optional().describe('true or false: whether a new repository is private'),
  })
  .describe('a mapping {repo, private}');

const s3 = z
  .strictObject({
    bucket: z
      .string()
      .regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/)
      .describe('the name of a bucket'),
    prefix: z
      .string()
      .max(500)
      .regex(/^(?!.*(^|\/)\.{1,2}(\/|$))[\w.-]+(\/[\w.-]+)*$/)
      .optional()
      .describe('the prefix of all keys, a plain path such as models/support'),
    region: z
      .string()
      .max(64)
      .regex(/^[a-z0-9-]+$/)
      .optional()
      .describe('the region of the bucket'),
    endpoint: endpoint.optional(),
    stream: z
      .boolean()
      .optional()
      .describe(
        'true or false: whether shards go up as they are merged and are not kept on this machine',
      ),
  })
  .describe('a mapping {bucket, prefix, region, endpoint, stream}');

const oci = z
  .strictObject({
    repository: z
      .string()
      .max(255)
      .regex(/^[A-Za-z0-9.-]+(:\d+)?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)+$/)
      .describe('a repository of a registry, such as registry.example.com/models/support'),
    insecure: z
      .boolean()
      .optional()
      .describe('true or false: whether the registry speaks plain HTTP'),
  })
  .describe('a mapping {repository, insecure}');

const ollama = z
  .strictObject({
    model: z
      .string()
      .max(200)
      .regex(/^[a-z0-9][\w.-]*(\/[a-z0-9][\w.-]*)?$/)
      .describe('the name of a model, name or namespace/name; versions become its tags'),
    endpoint: endpoint.optional(),
  })
  .describe('a mapping {model, endpoint}');

const mlflow = z
  .strictObject({
    model: z
      .string()
      .max(200)
      .regex(/^[\w.][\w. -]*$/)
      .describe('the name of a registered model'),
    tracking_uri: endpoint.optional(),
    source: z
      .enum(['hub', 's3', 'oci'])
      .optional()
      .describe('hub, s3 or oci: the target that the registered version points at'),
  })
  .describe('a mapping {model, tracking_uri, source}');

const alias = z
  .string()
  .max(50)
  .regex(/^[a-z][a-z0-9-]*$/)
  .describe('the name of an alias, such as latest or production: small letters, digits and "-"');

const artefact = z
  .string()
  .max(100)
  .regex(/^[a-z0-9][a-z0-9._-]*$/)
  .describe('merged, or the id of a conversion such as gguf-q4_k_m');

const target = z
  .strictObject({
    directory: directory.optional(),
    hub: hub.optional(),
    s3: s3.optional(),
    oci: oci.optional(),
    ollama: ollama.optional(),
    mlflow: mlflow.optional(),
    aliases: z
      .array(alias)
      .max(ALIASES_MAX)
      .optional()
      .describe('a list of aliases that are moved to what the gate let pass'),
    artefacts: z
      .array(artefact)
      .min(1)
      .optional()
      .describe('a list of the artefacts that go there (default: all that it can hold)'),
  })
  .superRefine((value, context) => {
    const named = TARGET_KINDS.filter((kind) => value[kind] !== undefined);
    if (named.length === 1) return;
    const message =
      named.length === 0
        ? `a target names one of ${TARGET_KINDS.join(', ')}`
        : `${named.join(' and ')} are two targets: write each as an entry of its own`;
    context.addIssue({ code: 'custom', message });
  })
  .describe('a mapping with one target: {directory: {path}}, {hub: {repo}}, …');

export const publish = z
  .array(target)
  .max(PUBLISH_TARGETS_MAX)
  .describe('a list of targets; without it the release stays in the workspace');

export const sign = z
  .enum(['key', 'keyless'])
  .describe(
    'key (WELDLINE_SIGNING_KEY names its file) or keyless (by the identity of the CI job): how ' +
      'model.sig is made',
  );

/** The parts of a recipe that decide what can be published where. */
interface PublishedRecipe {
  readonly publish?: z.infer<typeof publish> | undefined;
  readonly convert?: unknown;
  readonly evaluate?: unknown;
}

/** Targets that contradict each other or the rest of the recipe. */
export function refineTargets(recipe: PublishedRecipe, context: z.RefinementCtx): void {
  const targets = recipe.publish ?? [];
  for (const [index, { mlflow: registry, s3: bucket }] of targets.entries()) {
    if (registry !== undefined) {
      const holders = (['hub', 's3', 'oci'] as const).filter((kind) =>
        targets.some((other) => other[kind] !== undefined),
      );
      const isThere =
        registry.source === undefined ? holders.length > 0 : holders.includes(registry.source);
      if (!isThere) {
        const message =
          'MLflow registers where a model is and holds no files: add a target ' +
          `${registry.source ?? 'hub, s3 or oci'} that holds them`;
        context.addIssue({ code: 'custom', path: ['publish', index, 'mlflow'], message });
      }
    }
    if (bucket?.stream !== true) continue;
    const others = targets.filter((other) => other.mlflow === undefined).length > 1;
    if (others || recipe.convert !== undefined || recipe.evaluate !== undefined) {
      const message =
        'with stream the merged weights are never on this machine, so nothing can be converted, ' +
        'evaluated or published elsewhere (but registered in MLflow): leave stream out';
      context.addIssue({ code: 'custom', path: ['publish', index, 's3', 'stream'], message });
    }
  }
}

/** Where a release goes besides the workspace; paths absolute. */
export type PublishTarget = (
  | { readonly directory: { readonly path: string } }
  | { readonly hub: { readonly repo: string; readonly private?: boolean } }
  | {
      readonly s3: {
        readonly bucket: string;
        readonly prefix?: string;
        readonly region?: string;
        readonly endpoint?: string;
        readonly stream?: boolean;
      };
    }
  | { readonly oci: { readonly repository: string; readonly insecure?: boolean } }
  | { readonly ollama: { readonly model: string; readonly endpoint?: string } }
  | {
      readonly mlflow: {
        readonly model: string;
        readonly trackingUri?: string;
        readonly source?: 'hub' | 's3' | 'oci';
      };
    }
) & {
  /** Aliases that are moved to what the gate let pass. */
  readonly aliases?: readonly string[];
  /** The artefacts that go there; absent: all that it can hold. */
  readonly artefacts?: readonly string[];
};

/** @param toPath makes a path of the recipe absolute */
export function toTargets(
  document: z.infer<typeof publish>,
  toPath: (path: string) => string,
): readonly PublishTarget[] {
  return document.map(({ directory: local, mlflow: registry, ...rest }) => {
    const plain = JSON.parse(JSON.stringify(rest)) as PublishTarget;
    if (local !== undefined) return { ...plain, directory: { path: toPath(local.path) } };
    if (registry === undefined) return plain;
    const { tracking_uri: trackingUri, ...others } = registry;
    return {
      ...plain,
      mlflow: { ...others, ...(trackingUri && { trackingUri }) },
    } as PublishTarget;
  });
}

/** Paths of the directories that a recipe publishes into. */
export function directoryTargets(recipe: {
  readonly publish: readonly PublishTarget[];
}): readonly string[] {
  return recipe.publish.flatMap((target) => ('directory' in target ? [target.directory.path] : []));
}
