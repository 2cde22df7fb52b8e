import { isIP } from 'node:net';
import { WeldlineError } from '../engine/errors.ts';
import type { RemoteModel } from './remote-source.ts';

/** A model at a place that is neither a directory nor a hub. */
export interface RemoteReference {
  readonly kind: 'remote';
  readonly source: RemoteModel['kind'];
  /** In one spelling: without a slash at the end, the host in small letters. No credentials. */
  readonly uri: string;
}

/** As `publish` of recipes takes them. */
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const REGISTRY = /^[A-Za-z0-9.-]+(:\d{1,5})?$|^\[[0-9a-fA-F:]+\](:\d{1,5})?$/;
const REPOSITORY =
  /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** What people copy from their browser. */
const HUB_HOSTS = ['huggingface.co', 'www.huggingface.co', 'hf.co'];

const URI_CHARACTERS_MAX = 2048;

const KINDS: Readonly<Record<string, RemoteModel['kind']>> = {
  s3: 's3',
  oci: 'oci',
  http: 'http',
  https: 'http',
};

/** The kind of place that a URI's scheme stands for; undefined if none is known. */
export function remoteKind(scheme: string): RemoteModel['kind'] | undefined {
  return Object.hasOwn(KINDS, scheme) ? KINDS[scheme] : undefined;
}

/** @throws WeldlineError `source.invalid-reference`, which quotes no credentials */
export function parseRemoteReference(source: RemoteModel['kind'], text: string): RemoteReference {
  if (text.length > URI_CHARACTERS_MAX || /[\p{Cc}\s\\]/u.test(text)) {
    throw invalid(source, 'it is too long or holds blanks, backslashes or control characters');
  }
  // An "@" that follows the host is a digest of oci://; one before it, a password.
  const [authority = ''] = text.slice(text.indexOf('://') + 3).split(/[/?#]/, 1);
  if (authority.includes('@')) {
    throw invalid(
      source,
      'it holds a user name or password, which would end up in histories and manifests',
    );
  }
  const parse = { s3: parseS3, oci: parseOci, http: parseHttp }[source];
  return { kind: 'remote', source, uri: parse(text) };
}

function parseS3(text: string): string {
  const [bucket = '', ...steps] = text.slice('s3://'.length).split('/');
  if (!BUCKET.test(bucket)) throw invalid('s3', 'the name of a bucket comes first');
  const prefix = steps.join('/').replace(/\/$/, '');
  if (prefix !== '') checkSteps('s3', prefix);
  return prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
}

function parseOci(text: string): string {
  const rest = text.slice('oci://'.length).replace(/\/$/, '');
  const slash = rest.indexOf('/');
  const registry = rest.slice(0, Math.max(0, slash)).toLowerCase();
  const [path = '', digest, ...more] = rest.slice(slash + 1).split('@');
  const colon = path.lastIndexOf(':');
  const repository = colon < 0 ? path : path.slice(0, colon);
  const tag = colon < 0 ? undefined : path.slice(colon + 1);
  if (!REGISTRY.test(registry) || !REPOSITORY.test(repository) || more.length > 0) {
    throw invalid('oci', 'it names no repository of a registry');
  }
  if (digest === undefined && tag === undefined) {
    throw invalid('oci', 'it needs a tag or a digest');
  }
  if ((tag !== undefined && !TAG.test(tag)) || (digest !== undefined && !DIGEST.test(digest))) {
    throw invalid('oci', 'its tag or digest is not one');
  }
  // Where there is a digest, it decides; a tag beside it says nothing more.
  return `oci://${registry}/${repository}${digest === undefined ? `:${tag}` : `@${digest}`}`;
}

function parseHttp(text: string): string {
  if (!URL.canParse(text)) throw invalid('http', 'it is not a URL');
  const url = new URL(text);
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(text)) {
    throw invalid(
      'http',
      'it has a query or a fragment, where signed links have their secrets: name the directory of ' +
        'the model, under which its files are',
    );
  }
  checkSteps('http', decodePath(url.pathname.replace(/^\/|\/$/g, '')), true);
  checkTransport(url);
  if (HUB_HOSTS.includes(url.host)) {
    throw invalid('http', 'pages of the hub are no models: write hf://org/name[@revision]');
  }
  return url.href.replace(/\/+$/, '');
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw invalid('http', 'it has a "%" that starts no percent-encoding');
  }
}

/**
 * Plain HTTP is for this machine and private networks: elsewhere anyone on the way could put other
 * weights in the place of those that were asked for.
 * @throws WeldlineError `source.invalid-reference`
 */
export function checkTransport(url: URL): void {
  if (url.protocol === 'https:') return;
  if (url.protocol === 'http:' && isPrivateHost(url.hostname)) return;
  throw invalid('http', `${url.host} is on the open network and is read over https:// only`);
}

const PRIVATE_ADDRESS =
  /^(?:127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)|^\[(?:::1|f[cd][0-9a-f]{2}:.*)\]$/;

/** This machine, addresses of private networks (RFC 1918, RFC 4193), and names without a domain. */
function isPrivateHost(host: string): boolean {
  if (isIP(host) !== 0 || host.startsWith('[')) return PRIVATE_ADDRESS.test(host);
  return !host.includes('.') || /\.(?:localhost|local|internal|lan)$/.test(host);
}

function checkSteps(source: RemoteModel['kind'], path: string, mayBeEmpty = false): void {
  if (path === '' && mayBeEmpty) return;
  const isPlain = path.split('/').every((step) => step !== '' && step !== '.' && step !== '..');
  if (!isPlain) throw invalid(source, 'its path has empty steps, "." or ".."');
}

const FORMS: Readonly<Record<RemoteModel['kind'], string>> = {
  s3: 's3://bucket/prefix',
  oci: 'oci://registry/repository:tag or oci://registry/repository@sha256:…',
  http: 'https://host/path/of/the/model',
};

/** The text is not quoted: it may hold a password. */
function invalid(source: RemoteModel['kind'], why: string): WeldlineError {
  return new WeldlineError(
    'source.invalid-reference',
    `The ${source === 'http' ? 'URL' : `${source}:// reference`} does not name a model: ${why}. ` +
      `Write ${FORMS[source]}.`,
  );
}
