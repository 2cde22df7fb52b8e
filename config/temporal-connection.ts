import { createPrivateKey, X509Certificate } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import {
  type ClientConfigProfile,
  type ConfigDataSource,
  loadClientConfigProfile,
  loadConfigData,
  toClientOptions,
} from '@temporalio/envconfig';
import { WeldlineError } from '../engine/errors.ts';

/** A Temporal server of the user's, and what it takes to be let in. */
export interface TemporalTarget {
  /** `host:port` */
  readonly address: string;
  readonly namespace: string;
  /** Absent: the connection is not encrypted. */
  readonly tls?: {
    /** The name that the server's certificate must have, if not that of the address. */
    readonly serverNameOverride?: string;
    /** PEM; absent: the authorities that the system trusts. */
    readonly serverRootCACertificate?: Uint8Array;
    /** PEM. */
    readonly clientCertPair?: { readonly crt: Uint8Array; readonly key: Uint8Array };
  };
  readonly apiKey?: string;
  /** Headers of every request. */
  readonly metadata?: Record<string, string>;
}

type Variables = Readonly<Record<string, string>>;

const DEFAULT_PORT = 7233;

/** What HTTP takes as the value of a header. A token with a line break is a slip of the shell. */
const HEADER = /^[\x20-\x7e]+$/;

/**
 * Reads the standard Temporal variables and the profile of `temporal.toml` that they name.
 * @param variables those of the environment that are not empty
 * @throws WeldlineError `config.invalid`; shows no value of a key, token or certificate
 */
export function readTemporalTarget(variables: Variables): TemporalTarget {
  requireConfigFile(variables['TEMPORAL_CONFIG_FILE']);
  const profile = loadProfile(variables);
  const { address, apiKey } = profile;
  for (const value of [address, profile.namespace, apiKey]) {
    if (!['string', 'undefined'].includes(typeof value)) throw layout(variables);
  }
  checkHeaders(apiKey, profile.grpcMeta);
  checkCertificates(profile);
  const { connectionOptions, namespace = 'default' } = toClientOptions(profile);
  const { tls, metadata } = connectionOptions;
  const target = {
    address: checkAddress(address ?? 'localhost'),
    namespace,
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(metadata == null ? {} : { metadata: metadata as Record<string, string> }),
  };
  if (tls == null || tls === false) return target;
  return { ...target, tls: tls === true ? {} : (tls as NonNullable<TemporalTarget['tls']>) };
}

/** The library takes a file that is not there for none, and would connect without its secrets. */
function requireConfigFile(path: string | undefined): void {
  if (path === undefined) return;
  try {
    accessSync(path, constants.R_OK);
  } catch (cause) {
    throw invalid(`TEMPORAL_CONFIG_FILE names ${path}, which cannot be read.`, cause);
  }
}

function loadProfile(variables: Variables): ClientConfigProfile {
  try {
    return loadClientConfigProfile({ overrideEnvVars: variables });
  } catch (error) {
    const { message, line } = error as Error & { readonly line?: unknown };
    // A parser quotes the line that it does not understand, which may be the one with the key.
    if (typeof line === 'number') throw invalid(`${fileOf(variables)} is no TOML at line ${line}.`);
    if (error instanceof TypeError) throw layout(variables);
    throw invalid(`${fileOf(variables)} and the TEMPORAL_* variables: ${message}.`, error);
  }
}

function fileOf(variables: Variables): string {
  return variables['TEMPORAL_CONFIG_FILE'] ?? "Temporal's configuration file temporal.toml";
}

function layout(variables: Variables): WeldlineError {
  return invalid(
    `${fileOf(variables)} is not laid out as Temporal's profiles are: a table [profile.default] ` +
      'with texts such as address and namespace.',
  );
}

/** A host and port, as gRPC takes them. */
function checkAddress(address: string): string {
  const [, host, port = String(DEFAULT_PORT)] =
    /^(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?$/i.exec(address) ?? [];
  if (host === undefined || Number(port) > 65_535) {
    throw invalid(
      `TEMPORAL_ADDRESS is "${address}", but must be a host and port, without https://.`,
    );
  }
  return `${host}:${port}`;
}

function checkHeaders(apiKey: string | undefined, metadata: Variables = {}): void {
  if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
    throw invalid('TEMPORAL_API_KEY, or api_key of the profile, holds what no API key has.');
  }
  for (const [name, value] of Object.entries(metadata)) {
    if (/^[0-9a-z_.-]+$/.test(name) && HEADER.test(String(value))) continue;
    throw invalid(`The header ${JSON.stringify(name)} (TEMPORAL_GRPC_META_*, grpc_meta) is none.`);
  }
}

/** Certificates that cannot work are told before a server answers with an alert that says little. */
function checkCertificates({ tls = {} }: ClientConfigProfile): void {
  const { clientCert, clientKey, serverCACert } = tls;
  if (tls.disabled === true) return;
  if ((clientCert === undefined) !== (clientKey === undefined)) {
    const [there, lacking] =
      clientKey === undefined ? ['certificate', 'KEY'] : ['private key', 'CERT'];
    throw invalid(
      `There is a client ${there} for Temporal, but not its other half: ` +
        `TEMPORAL_TLS_CLIENT_${lacking}_PATH, or client_${lacking.toLowerCase()}_path of the profile.`,
    );
  }
  if (serverCACert !== undefined) {
    parse('CA certificate for Temporal', serverCACert, (pem) => new X509Certificate(pem));
  }
  if (clientCert === undefined || clientKey === undefined) return;
  const what = 'client certificate for Temporal';
  const certificate = parse(what, clientCert, (pem) => new X509Certificate(pem));
  const key = parse('private key for Temporal', clientKey, createPrivateKey);
  if (!certificate.checkPrivateKey(key)) {
    throw invalid(
      `The ${what}${at(clientCert)} and the key${at(clientKey)} do not belong together.`,
    );
  }
  if (Date.parse(certificate.validTo) < Date.now()) {
    throw invalid(`The ${what}${at(clientCert)} expired on ${certificate.validTo}.`);
  }
}

function parse<T>(what: string, source: ConfigDataSource, parser: (pem: Buffer) => T): T {
  let pem: Buffer;
  try {
    pem = Buffer.from(loadConfigData(source) ?? []);
  } catch (cause) {
    throw invalid(`The ${what} cannot be read: ${(cause as Error).message}.`, cause);
  }
  try {
    return parser(pem);
  } catch {
    // What the parser says may quote what it read.
    throw invalid(`The ${what}${at(source)} is not in PEM, or has a passphrase.`);
  }
}

function at(source: ConfigDataSource): string {
  return 'path' in source ? ` ${source.path}` : '';
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'config.invalid',
    `${problem} Correct it, or unset TEMPORAL_ADDRESS, TEMPORAL_PROFILE and TEMPORAL_CONFIG_FILE to ` +
      'use the embedded server.',
    cause === undefined ? {} : { cause },
  );
}
