import { setTimeout as sleep } from 'node:timers/promises';
import type { S3Client } from '@aws-sdk/client-s3';
import type { Patience } from './patience.ts';
import { type S3Side, toS3Failure, withoutCredentials } from './s3-failure.ts';

export interface S3Options {
  readonly bucket: string;
  /** Otherwise what the SDK finds: AWS_REGION, the profile; us-east-1 where that says nothing. */
  readonly region?: string | undefined;
  /** URL of a server that is not AWS; its buckets are in the path, not in the host's name. */
  readonly endpoint?: string | undefined;
  readonly patience: Patience;
  readonly side: S3Side;
}

type Sdk = typeof import('@aws-sdk/client-s3');

/** One bucket, asked as long as its server deserves it. */
export interface S3Connection {
  readonly bucket: string;
  /** Names of commands; loaded with the connection. */
  readonly sdk: Sdk;
  /**
   * Makes a request, and makes it again while it fails in ways that may pass.
   * @param what for the message of an error
   * @param work one attempt, its answer's body included; passes `options` to each `client.send`
   * @throws WeldlineError of the connection's side, with `status` and `reason` in its details where
   *   the server answered; the signal's reason
   */
  call<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (client: S3Client, options: { readonly abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T>;
  close(): void;
}

/** For servers other than AWS, and for AWS where nobody names one: redirects lead on from there. */
const DEFAULT_REGION = 'us-east-1';
/** Roles of machines and programs that make credentials answer within seconds, or not at all. */
const CREDENTIALS_TIMEOUT_MS = 20_000;
/** Stands where the SDK wants some; nothing is signed with it. */
const NOBODY = { accessKeyId: 'nobody', secretAccessKey: 'nothing' };
const CONNECTIONS_MAX = 32;
const BACKOFF_MAX_MS = 20_000;

/** Connects to a bucket; nothing is sent yet. The SDK is loaded now. */
export async function connectS3(options: S3Options): Promise<S3Connection> {
  const { bucket, patience, side } = options;
  const sdk = await import('@aws-sdk/client-s3');
  let client = await createClient(sdk, options, true);
  const prepare = async (what: string): Promise<void> => {
    if (await hasCredentials(client)) return;
    if (side === 'publish') throw withoutCredentials(what, side);
    // Some buckets may be read by anybody.
    client.destroy();
    client = await createClient(sdk, options, false);
  };
  let prepared: Promise<void> | undefined;
  return {
    bucket,
    sdk,
    close: () => client.destroy(),
    async call(what, signal, work) {
      for (let attempt = 1; ; attempt++) {
        signal?.throwIfAborted();
        try {
          prepared ??= prepare(what).catch((error: unknown) => {
            prepared = undefined;
            throw error;
          });
          await prepared;
          return await work(client, signal === undefined ? {} : { abortSignal: signal });
        } catch (thrown) {
          signal?.throwIfAborted();
          const failure = toS3Failure(thrown, what, side);
          if (failure === undefined) throw thrown;
          const waitMs = failure.retryAfterMs ?? backoffMs(attempt, patience);
          const isTooLong = (failure.retryAfterMs ?? 0) > patience.retryAfterMaxMs;
          if (!failure.mayPass || attempt >= patience.attemptsMax || isTooLong) throw failure.error;
          await pause(waitMs, signal);
        }
      }
    },
  };
}

async function createClient(sdk: Sdk, options: S3Options, signs: boolean): Promise<S3Client> {
  const { region, endpoint, patience } = options;
  const create = (fixed: string | undefined) =>
    new sdk.S3Client({
      ...(fixed === undefined ? {} : { region: fixed }),
      ...(endpoint === undefined ? {} : { endpoint, forcePathStyle: true }),
      ...(signs ? {} : { credentials: NOBODY, signer: { sign: async (request) => request } }),
      followRegionRedirects: true,
      // Tried again by `call`, which knows how patient to be.
      maxAttempts: 1,
      // Checksums are given where they are wanted: by the SHA-256 of what is sent.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      expectContinueHeader: false,
      requestHandler: {
        connectionTimeout: Math.min(patience.stallTimeoutMs, 10_000),
        socketTimeout: patience.stallTimeoutMs,
        httpAgent: { maxSockets: CONNECTIONS_MAX },
        httpsAgent: { maxSockets: CONNECTIONS_MAX },
      },
    });
  const client = create(region);
  if (region !== undefined) return client;
  try {
    await client.config.region();
    return client;
  } catch {
    client.destroy();
    return create(DEFAULT_REGION);
  }
}

/** Looks for credentials within bounds, so that a machine without any is found out soon. */
async function hasCredentials(client: S3Client): Promise<boolean> {
  const controller = new AbortController();
  const tooLate = sleep(CREDENTIALS_TIMEOUT_MS, false, controller);
  const found = client.config.credentials().then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([found, tooLate]);
  } finally {
    tooLate.catch(() => undefined);
    controller.abort();
  }
}

function backoffMs(attempt: number, patience: Patience): number {
  const delayMs = Math.min(patience.backoffMs * 2 ** (attempt - 1), BACKOFF_MAX_MS);
  // Jitter, so that the parts of one file do not come back all at once.
  return delayMs * (0.5 + Math.random() / 2);
}

async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(delayMs, undefined, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
