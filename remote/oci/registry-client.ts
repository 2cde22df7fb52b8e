import { httpRequest } from '../http.ts';
import { type CodeOf, statusFailure } from '../http-failures.ts';
import type { Patience } from '../patience.ts';
import { readDockerCredentials } from './docker-credentials.ts';
import { nameOfPlace, type OciPlace } from './oci-place.ts';
import { registryAuthorization } from './registry-authorization.ts';

export interface RegistryRequest {
  readonly method: string;
  /** Below `/v2/<repository>/`, or an address that the registry gave. */
  readonly to: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | (() => AsyncIterable<Uint8Array>);
  readonly signal: AbortSignal;
  readonly accept?: readonly number[];
  /** What it is about, for errors: a tag, a path; the repository without one. */
  readonly what?: string;
  /** For what must not be sent twice without a look at what became of it. */
  readonly once?: boolean;
  /** How much longer than others the registry may take to answer. */
  readonly stallExtraMs?: number;
}

/** One repository of a registry, by the OCI distribution specification 1.1. */
export interface RegistryClient {
  readonly place: OciPlace;
  readonly patience: Patience;
  readonly codeOf: CodeOf;
  /**
   * One request with the authorization that the registry asks for; see {@link httpRequest}.
   * @throws WeldlineError by `codeOf`, `config.invalid`; what a body's stream throws; the signal's
   *   reason
   */
  ask(request: RegistryRequest): Promise<Response>;
}

export interface RegistryClientOptions {
  readonly place: OciPlace;
  /** Directory of Docker's `config.json`. */
  readonly dockerConfig: string;
  readonly patience: Patience;
  readonly codeOf: CodeOf;
}

export function registryClient(options: RegistryClientOptions): RegistryClient {
  const { place, patience, codeOf } = options;
  const { origin, registry, repository } = place;
  const authorization = registryAuthorization({
    ...{ origin, registry, patience, codeOf },
    credentials: () => readDockerCredentials(options.dockerConfig, registry),
  });
  return {
    place,
    patience,
    codeOf,
    async ask(request) {
      const { method, to, headers = {}, accept = [], what, once = false } = request;
      const { body, signal, stallExtraMs = 0 } = request;
      const url = to instanceof URL ? to : new URL(`/v2/${repository}/${to}`, origin);
      const name = `${nameOfPlace(place)}${what === undefined ? '' : ` (${what})`}`;
      // Sessions of uploads may be elsewhere; the registry's credentials are not for there.
      const isHome = url.origin === new URL(origin).origin;
      const access = accessOf(method);
      const send = (header: string | undefined, accepted: readonly number[]) =>
        httpRequest({
          ...{ url, method, signal, name, codeOf, accept: accepted, ...(body && { body }) },
          headers: { ...headers, ...(header !== undefined && { authorization: header }) },
          patience: {
            ...patience,
            stallTimeoutMs: patience.stallTimeoutMs + stallExtraMs,
            ...(once && { attemptsMax: 1 }),
          },
        });
      if (!isHome) return send(undefined, accept);
      const known = await authorization.current(access, signal);
      const response = await send(known, [...accept, 401]);
      if (response.status !== 401 || accept.includes(401)) return response;
      const failure = await statusFailure(response, {
        ...{ name, codeOf },
        headers: new Headers(known === undefined ? {} : { authorization: known }),
      });
      const challenge = response.headers.get('www-authenticate');
      const header = await authorization.answer(challenge, access, signal);
      if (header === undefined || header === known) throw failure;
      return send(header, accept);
    },
  };
}

/** Tokens are good for what they were asked for. */
function accessOf(method: string): string {
  if (method === 'GET' || method === 'HEAD') return 'pull';
  return method === 'DELETE' ? 'delete' : 'push';
}
