import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode, type Logger } from '@temporalio/worker';
import { writeFileDurably } from '../engine/durable-files.ts';

const WORKFLOWS = fileURLToPath(new URL('../workflows/', import.meta.url));

const TRACING_INTERCEPTORS = '@temporalio/interceptors-opentelemetry/lib/workflow-interceptors';

/** Puts messages and stack traces of failures into payloads, for a codec to encrypt. */
export const ENCODED_FAILURES = join(
  WORKFLOWS,
  `encoded-failures.${import.meta.url.endsWith('.ts') ? 'cts' : 'cjs'}`,
);

/** What is in a bundle beside the workflows. */
export interface BundleOptions {
  /** The workflows take part in traces. */
  readonly traced?: boolean;
  /** What failures say can be encrypted. */
  readonly encodesFailures?: boolean;
}

/** The published package holds all bundles, made when it was built. */
export function prebuiltBundle(options: BundleOptions = {}): string {
  return join(WORKFLOWS, `workflow-bundle${suffixOf(options)}.js`);
}

function suffixOf({ traced = false, encodesFailures = false }: BundleOptions): string {
  return `${traced ? '-traced' : ''}${encodesFailures ? '-encoded' : ''}`;
}

/**
 * The code that runs in the workflow sandbox. In a checkout it is bundled when the sources have
 * changed, which takes some seconds, and kept for the next start.
 *
 * @param cacheDirectory where bundles of this checkout are kept
 * @param encodesFailures whether texts of failures go into payloads, for a codec to encrypt
 */
export async function loadWorkflowBundle(
  cacheDirectory: string,
  logger: Logger,
  options: BundleOptions = {},
): Promise<string> {
  if (!import.meta.url.endsWith('.ts')) return readFile(prebuiltBundle(options), 'utf8');
  const path = join(cacheDirectory, `workflows-${sourcesDigest()}${suffixOf(options)}.js`);
  try {
    return await readFile(path, 'utf8');
  } catch {
    const code = await buildWorkflowBundle('index.ts', logger, options);
    await mkdir(cacheDirectory, { recursive: true });
    await writeFileDurably(path, code);
    return code;
  }
}

/** @param entry file name in `workflows/` */
export async function buildWorkflowBundle(
  entry: string,
  logger: Logger,
  { traced = false, encodesFailures = false }: BundleOptions = {},
): Promise<string> {
  const { code } = await bundleWorkflowCode({
    workflowsPath: join(WORKFLOWS, entry),
    logger,
    ...(traced && { workflowInterceptorModules: [TRACING_INTERCEPTORS] }),
    ...(encodesFailures ? { failureConverterPath: ENCODED_FAILURES } : {}),
  });
  return code;
}

/** What the bundle is made of: the workflows' sources and the SDK. Other imports are types only. */
function sourcesDigest(): string {
  const hash = createHash('sha256');
  const { version } = createRequire(import.meta.url)('@temporalio/workflow/package.json') as {
    version: string;
  };
  hash.update(version);
  for (const name of readdirSync(WORKFLOWS).sort()) {
    if (/\.c?ts$/.test(name)) hash.update(name).update(readFileSync(join(WORKFLOWS, name)));
  }
  return hash.digest('hex').slice(0, 16);
}
