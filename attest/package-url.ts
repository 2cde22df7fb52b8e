import { DEFAULT_HUB_ENDPOINT } from '../config/environment.ts';
import type { ModelPlace } from './facts.ts';

/** Package URLs: https://github.com/package-url/purl-spec. */

interface PackageUrl {
  readonly type: string;
  /** With its namespace before it: `org/name`. */
  readonly name: string;
  readonly version: string;
  /** In the order of their names. */
  readonly qualifiers?: Readonly<Record<string, string>>;
  readonly subpath?: string;
}

export function packageUrl({ type, name, version, qualifiers = {}, subpath }: PackageUrl): string {
  const pairs = Object.entries(qualifiers).map(([key, value]) => `${key}=${encodePath(value)}`);
  const query = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  const fragment = subpath === undefined || subpath === '' ? '' : `#${encodePath(subpath)}`;
  return `pkg:${type}/${encodePath(name)}@${encode(version)}${query}${fragment}`;
}

const encodePath = (path: string): string => path.split('/').map(encode).join('/');

/** Everything but letters, digits and ".-_~:". */
function encode(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!*'()]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%3A', ':');
}

/**
 * Where a model came from, pinned as far as a URI can; undefined for a directory, whose path means
 * nothing elsewhere.
 * @param file one of its files
 */
export function modelUri(place: ModelPlace, file?: string): string | undefined {
  switch (place.kind) {
    case 'directory':
      return undefined;
    case 'hub': {
      const { repo, commit, folder, endpoint = DEFAULT_HUB_ENDPOINT } = place;
      return packageUrl({
        ...{ type: 'huggingface', name: repo, version: commit },
        ...(endpoint !== DEFAULT_HUB_ENDPOINT && { qualifiers: { repository_url: endpoint } }),
        subpath: [folder, file ?? ''].filter((part) => part !== '').join('/'),
      });
    }
    case 'oci':
      // Files are layers, which have digests and no addresses of their own.
      return file === undefined ? pinnedOci(place.uri, place.pin) : undefined;
    default:
      return file === undefined
        ? place.uri
        : `${place.uri.replace(/\/+$/, '')}/${file.split('/').map(encodeURIComponent).join('/')}`;
  }
}

/** The digest in place of a tag, which can be moved. */
function pinnedOci(uri: string, pin: string): string {
  return `${uri.replace(/(@sha256:[0-9a-f]+|:[^/:@]+)$/, '')}@sha256:${pin}`;
}

/** What registries call the programs that take part; others are `generic`. */
const TOOLS: Readonly<Record<string, readonly [type: string, name: string]>> = {
  weldline: ['npm', 'weldline'],
  'node-llama-cpp': ['npm', 'node-llama-cpp'],
  'llama.cpp': ['github', 'ggml-org/llama.cpp'],
  llmcompressor: ['pypi', 'llmcompressor'],
  'llm-compressor': ['pypi', 'llmcompressor'],
  'compressed-tensors': ['pypi', 'compressed-tensors'],
  torch: ['pypi', 'torch'],
  transformers: ['pypi', 'transformers'],
};

/** @param version what stands behind a space says more of it, and is left out */
export function toolUrl(tool: string, version: string): string {
  const [type, name] = TOOLS[tool] ?? ['generic', tool];
  return packageUrl({ type, name, version: version.split(' ')[0] ?? version });
}
