import { realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { childVariables, type Environment } from '../config/environment.ts';
import { WeldlineError } from '../engine/errors.ts';
import { findOnPath } from './find-on-path.ts';
import type { LlamaCpp } from './llama-cpp.ts';
import { installDirectory, installedLlamaCpp, LLAMA_CPP_RELEASE } from './llama-cpp-release.ts';
import { run } from './run.ts';

/**
 * The versions of a user's own that are taken: 0.4, releases and builds from its source. Options, file
 * types and what the converter knows change between minor versions, and nothing was tried with others.
 */
const KNOWN_VERSION = /^0\.4\.\d+(-dev)?$/;
const KNOWN_VERSIONS = '0.4';
const PROBE_TIMEOUT_MS = 30_000;

const CONVERTER = 'convert_hf_to_gguf.py';
const QUANTIZER = 'llama-quantize';
/** What weldline can make use of; a build has dozens more. */
const PROGRAMS = [
  ...[QUANTIZER, 'llama-imatrix', 'llama-gguf-split', 'llama-perplexity', 'llama-server'],
  ...['llama-completion', 'llama-cli'],
];
/** Programs that print the version, the smallest first. llama-quantize has no option for it. */
const TELLERS = ['llama-gguf-split', 'llama-imatrix', 'llama-perplexity', 'llama-completion'];
const TELLERS_AFTER = ['llama-cli', 'llama-server'];

/** Where programs are in what is set, and the converter beside programs: checkouts, prefixes. */
const PROGRAM_FOLDERS = ['', 'build/bin', 'bin'];
const CONVERTER_FOLDERS = ['', '..', '../..', '../libexec', '../share/llama.cpp'];

export interface FindLlamaCppOptions {
  environment: Pick<Environment, 'toolsDirectory' | 'llamaCpp'>;
  /** The environment for the programs run on the way; its PATH is searched. */
  variables?: Readonly<Record<string, string>>;
  signal?: AbortSignal | undefined;
  /** One line for each llama.cpp that is passed over. */
  onProgress?: ((line: string) => void) | undefined;
}

/**
 * The llama.cpp to use: the one the user set, else one on PATH whose version is known, else the
 * installed one. One of the user's own needs `llama-quantize` and, in the same place or above it, the
 * converter with its `conversion` folder.
 *
 * @throws WeldlineError `tool.not-found` or `tool.wrong-version` about WELDLINE_LLAMA_CPP only
 */
export async function findLlamaCpp(options: FindLlamaCppOptions): Promise<LlamaCpp | undefined> {
  const { toolsDirectory, llamaCpp } = options.environment;
  const variables = options.variables ?? childVariables();
  if (llamaCpp !== undefined) return await probeSetting(llamaCpp, options);

  const quantizer = await findOnPath(QUANTIZER, variables['PATH']);
  if (quantizer !== undefined) {
    const converter = await findOnPath(CONVERTER, variables['PATH']);
    try {
      const beside = converter === undefined ? [] : [dirname(await realpath(converter))];
      return await probe(quantizer, dirname(quantizer), 'path', beside, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!(error instanceof WeldlineError)) throw error;
      options.onProgress?.(`Passing over the llama.cpp on PATH: ${error.message}`);
    }
  }
  try {
    return installedLlamaCpp(installDirectory(toolsDirectory));
  } catch (error) {
    // No prebuilt libraries for this machine, so none are installed.
    if (error instanceof WeldlineError && error.code === 'tool.not-found') return undefined;
    throw error;
  }
}

async function probeSetting(directory: string, options: FindLlamaCppOptions): Promise<LlamaCpp> {
  try {
    for (const folder of PROGRAM_FOLDERS) {
      const quantizer = await findOnPath(QUANTIZER, join(directory, folder));
      if (quantizer === undefined) continue;
      return await probe(quantizer, directory, 'setting', [directory], options);
    }
    throw missing(`${directory} has no ${QUANTIZER}, nor have its build/bin and bin.`);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof WeldlineError)) throw error;
    throw new WeldlineError(
      error.code === 'tool.wrong-version' ? error.code : 'tool.not-found',
      `WELDLINE_LLAMA_CPP: ${error.message} Correct it, or unset it and run ` +
        '`weldline tools install gguf`.',
      { cause: error },
    );
  }
}

/** @throws WeldlineError for one without a converter or in a version that is not known */
async function probe(
  quantizer: string,
  directory: string,
  origin: 'setting' | 'path',
  converterFolders: readonly string[],
  options: FindLlamaCppOptions,
): Promise<LlamaCpp> {
  const found = await Promise.all(
    PROGRAMS.map(async (name) => [name, await findOnPath(name, dirname(quantizer))] as const),
  );
  const programs = Object.fromEntries(
    found.filter((entry): entry is readonly [string, string] => entry[1] !== undefined),
  );
  const version = await readVersion(programs, options);
  const beside = dirname(await realpath(quantizer));
  const folders = [...converterFolders, ...CONVERTER_FOLDERS.map((each) => join(beside, each))];
  for (const converter of folders) {
    if (!(await isConverter(converter))) continue;
    return { origin, directory, version, converter, programs };
  }
  throw missing(
    `${quantizer} has no ${CONVERTER} with its folder "conversion" nearby, as a checkout of ` +
      'llama.cpp has them.',
  );
}

async function isConverter(directory: string): Promise<boolean> {
  const exists = (name: string) =>
    stat(join(directory, name)).then(
      () => true,
      () => false,
    );
  return (await exists(CONVERTER)) && (await exists('conversion'));
}

async function readVersion(
  programs: Readonly<Record<string, string>>,
  { variables = childVariables(), signal }: FindLlamaCppOptions,
): Promise<string> {
  const [teller] = [...TELLERS, ...TELLERS_AFTER].flatMap((name) => programs[name] ?? []);
  if (teller === undefined) {
    throw missing(
      `${programs[QUANTIZER]} stands alone: none of ${TELLERS.join(', ')} is beside it to tell ` +
        'its version.',
    );
  }
  let output = '';
  const onLine = (line: string) => {
    output += `${line}\n`;
  };
  const limits = { signal, timeoutMs: PROBE_TIMEOUT_MS };
  await run({ file: teller, args: ['--version'], env: variables, ...limits, onLine });
  const [, release, build, commit] =
    /^version: (\S+) \(build (\d+), commit (\w+)\)/m.exec(output) ?? [];
  if (release !== undefined && KNOWN_VERSION.test(release)) {
    return `v${release} (b${build}-${commit})`;
  }
  const [said] = /^version: .*/m.exec(output) ?? [
    `"${output.trim().split('\n')[0]?.slice(0, 100)}"`,
  ];
  throw new WeldlineError(
    'tool.wrong-version',
    `${teller} says ${said}, and weldline knows llama.cpp ${KNOWN_VERSIONS} ` +
      `(the one it installs is ${LLAMA_CPP_RELEASE}).`,
  );
}

function missing(message: string): WeldlineError {
  return new WeldlineError('tool.not-found', message);
}
