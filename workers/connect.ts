import { NativeConnection } from '@temporalio/worker';
import { WeldlineError } from '../engine/errors.ts';
import { waitUntil } from './wait-until.ts';

/** Clients have reached the server by now: if it is away, it is being restarted. */
const CONNECT_TIMEOUT_MS = 30_000;
const CONNECT_INTERVAL_MS = 500;

/** TLS, API key and headers of a configured server. */
export type ConnectionOptions = Omit<Parameters<typeof NativeConnection.connect>[0], 'address'>;

/** @throws WeldlineError `temporal.unreachable` */
export async function connect(
  address: string,
  options: ConnectionOptions | undefined,
): Promise<NativeConnection> {
  let connection: NativeConnection | undefined;
  let error: unknown;
  const connected = async (): Promise<boolean> => {
    try {
      connection = await NativeConnection.connect({ ...options, address });
      return true;
    } catch (reason) {
      error = reason;
      return false;
    }
  };
  const wait = { timeoutMs: CONNECT_TIMEOUT_MS, pollMs: CONNECT_INTERVAL_MS };
  if (!(await waitUntil(connected, wait)) || connection === undefined) {
    throw new WeldlineError(
      'temporal.unreachable',
      `No Temporal server answers at ${address}. Check TEMPORAL_ADDRESS, or unset it to use the ` +
        'embedded server.',
      { cause: error },
    );
  }
  return connection;
}
