import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { arch, platform } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeldlineError } from '../engine/errors.ts';
import type { LlamaCpp } from './llama-cpp.ts';

/**
 * The release of llama.cpp that weldline installs: libraries and source in npm packages, which
 * `llama-cpp-packages/package-lock.json` pins by their digests.
 */
export const LLAMA_CPP_RELEASE = 'v0.4.0';
/** The one commit of the bundle in node-llama-cpp, which holds the source. */
export const LLAMA_CPP_COMMIT = '80fb11ac73e66d89eae2c6a91d8a77428fa733ed';
/** What `llama_version()` of its libraries says. */
export const LLAMA_LIBRARY_VERSION = '0.4.0-dev';
export const LLAMA_CPP_INSTALLED_BYTES = 98_000_000;
/** With what npm keeps in its cache and unpacks beside it. */
export const LLAMA_CPP_BYTES = 250_000_000;

/** What the converter needs, and what `buildLlamaPrograms` compiles; all with their licences. */
export const SOURCE_PATHS = [
  ...['LICENSE', 'licenses', 'convert_hf_to_gguf.py', 'convert_lora_to_gguf.py', 'conversion'],
  ...['gguf-py', 'include', 'common', 'ggml/include', 'vendor'],
  ...['tools/quantize', 'tools/imatrix', 'tools/gguf-split', 'tools/perplexity'],
];

/** By platform: the package with the libraries, and that of koffi. Only the first is in the tests. */
const PACKAGES: Readonly<Record<string, readonly [libraries: string, koffi: string]>> = {
  'linux-x64': ['linux-x64', 'linux-x64'],
  'linux-arm64': ['linux-arm64', 'linux-arm64'],
  'darwin-arm64': ['mac-arm64-metal', 'darwin-arm64'],
  'darwin-x64': ['mac-x64', 'darwin-x64'],
};

/** The libraries are linked against it. */
const GLIBC_MIN = [2, 34] as const;

/** @throws WeldlineError `tool.not-found` where there are no packages for this machine */
export function platformPackages(): { readonly libraries: string; readonly koffi: string } {
  const [libraries, koffi] = PACKAGES[`${platform()}-${arch()}`] ?? [];
  if (libraries === undefined || koffi === undefined) {
    throw unsupported(`${platform()} on ${arch()}`);
  }
  if (platform() === 'linux') {
    const version = glibcVersion();
    const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
    if (major < GLIBC_MIN[0] || (major === GLIBC_MIN[0] && minor < GLIBC_MIN[1])) {
      throw unsupported(
        version === undefined
          ? 'a Linux without glibc, such as Alpine'
          : `glibc ${version} (they need ${GLIBC_MIN.join('.')})`,
      );
    }
  }
  return { libraries: `@node-llama-cpp/${libraries}`, koffi: `@koromix/koffi-${koffi}` };
}

/** Undefined where there is none. Only Node's report has it. */
function glibcVersion(): string | undefined {
  // Otherwise the report looks up the names of hosts that connections lead to.
  const report = process.report as typeof process.report & { excludeNetwork: boolean };
  const { excludeNetwork } = report;
  report.excludeNetwork = true;
  try {
    const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
    return header.glibcVersionRuntime;
  } finally {
    report.excludeNetwork = excludeNetwork;
  }
}

function unsupported(machine: string): WeldlineError {
  return new WeldlineError(
    'tool.not-found',
    `There is no prebuilt llama.cpp ${LLAMA_CPP_RELEASE} for ${machine}. Build llama.cpp ` +
      `${LLAMA_CPP_RELEASE} from source and set WELDLINE_LLAMA_CPP to its directory.`,
  );
}

/** The files that say what is installed; parsed. */
export function readLlamaCppLock(): { readonly manifest: string; readonly lock: string } {
  const read = (name: string) =>
    readFileSync(fileURLToPath(new URL(`./llama-cpp-packages/${name}`, import.meta.url)), 'utf8');
  return { manifest: read('package.json'), lock: read('package-lock.json') };
}

/** Where it is installed: another lock is another directory. */
export function installDirectory(toolsDirectory: string): string {
  const { manifest, lock } = readLlamaCppLock();
  const digest = createHash('sha256').update(manifest).update(lock).digest('hex').slice(0, 8);
  return join(toolsDirectory, `llama-cpp-${LLAMA_CPP_RELEASE}-${digest}`);
}

/** What is installed in a directory, or undefined when a part of it is missing. */
export function installedLlamaCpp(directory: string): LlamaCpp | undefined {
  const packages = platformPackages();
  const modules = join(directory, 'node_modules');
  const name = packages.libraries.split('/')[1] ?? '';
  const libraries = join(modules, packages.libraries, 'bins', name);
  const converter = join(directory, 'source');
  const parts = [
    ...[libraries, join(modules, packages.koffi), join(modules, 'koffi')],
    join(modules, 'node-llama-cpp', 'package.json'),
    ...SOURCE_PATHS.map((path) => join(converter, path)),
  ];
  if (!parts.every((path) => existsSync(path))) return undefined;
  return {
    origin: 'installed',
    directory,
    version: `${LLAMA_CPP_RELEASE} (${LLAMA_CPP_COMMIT.slice(0, 8)})`,
    converter,
    libraries,
    modules,
    programs: builtPrograms(directory),
  };
}

/** Programs that `buildLlamaPrograms` can make, and their sources. */
export const PROGRAM_SOURCES: Readonly<Record<string, readonly string[]>> = {
  'llama-quantize': ['tools/quantize/main.cpp', 'tools/quantize/quantize.cpp'],
  'llama-imatrix': ['tools/imatrix/imatrix.cpp'],
  'llama-gguf-split': ['tools/gguf-split/gguf-split.cpp'],
  'llama-perplexity': ['tools/perplexity/main.cpp', 'tools/perplexity/perplexity.cpp'],
};

/** Those that were made: a file in `programs` is whole, since it is renamed into place. */
function builtPrograms(directory: string): Readonly<Record<string, string>> {
  const paths = Object.keys(PROGRAM_SOURCES).map((name) => [
    name,
    join(directory, 'programs', name),
  ]);
  return Object.fromEntries(paths.filter(([, path]) => existsSync(path ?? '')));
}
