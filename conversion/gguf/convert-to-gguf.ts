import { mkdir, rm, statfs, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ggufType } from '../../config/gguf-types.ts';
import { digestOf } from '../../engine/canonical-json.ts';
import { digestFile } from '../../engine/durable-files.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { quantizeGguf } from '../../tools/gguf/quantize-gguf.ts';
import type { GgufStep } from '../conversion-step.ts';
import {
  type ConversionFacts,
  type ConversionFindings,
  makeConversion,
  readConversion,
} from '../conversion-store.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';
import { checkGguf, readShapes } from './check-gguf.ts';
import type { Shapes } from './check-tensors.ts';
import { type GgufModel, readGguf } from './gguf-model.ts';
import { fileNamePart } from './gguf-name.ts';
import { makeImatrix } from './make-imatrix.ts';
import { converterVersions, HF_CONVERTER, requireLlamaCpp, runConverter } from './run-converter.ts';
import { splitGguf } from './split-gguf.ts';

/** Counts changes of what is made from the same inputs by the same tools. */
const KEY_FORMAT = 1;
/** A volume with less than this is full, whatever the program said that failed on it. */
const FULL_BYTES = 1024 * 1024;

type Options = ConvertOptions<GgufStep>;

/**
 * One GGUF model of the merged checkpoint: 16 or 32 bits by llama.cpp's converter, others quantized
 * from such a file; cut into parts where the step says so, read back and tried.
 *
 * @throws WeldlineError `convert.*`, `tool.*`, `disk.*`
 */
export async function convertToGguf(options: Options): Promise<Conversion> {
  const { after } = options.step;
  return after === undefined ? await fromCheckpoint(options) : await fromGguf(options, after);
}

async function fromCheckpoint(options: Options): Promise<Conversion> {
  const { step, mergedDigest, modelName } = options;
  const tools = converterVersions(options.tools);
  const settings = {
    type: step.type,
    name: modelName,
    ...(step.splitBytes === undefined ? {} : { splitBytes: step.splitBytes }),
  };
  const key = digestOf({ format: KEY_FORMAT, source: mergedDigest, settings, tools });
  const facts = { id: step.id, kind: step.kind, key, tools, settings };
  return await make(options, facts, async (target) => {
    options.onProgress?.({ stage: 'converting' });
    const shapes = await readShapes(options.merged);
    // The converter takes names from its directory's: by a link they are the model's own.
    const names = `${target}.names`;
    const source = join(names, fileNamePart(modelName));
    await mkdir(names);
    await symlink(resolve(options.merged), source);
    try {
      await runConverter({
        script: HF_CONVERTER,
        args: [
          source,
          ...['--outfile', target, '--outtype', step.type.toLowerCase()],
          ...['--model-name', modelName],
        ],
        tools: options.tools,
        signal: options.signal,
        logFile: options.logFile,
        onFraction: (fraction) => options.onProgress?.({ stage: 'converting', fraction }),
      });
    } finally {
      await rm(names, { recursive: true, force: true });
    }
    return shapes;
  });
}

async function fromGguf(options: Options, after: string): Promise<Conversion> {
  const { step, signal } = options;
  const llamaCpp = requireLlamaCpp(options.tools);
  const source = await readConversion(options.sources[after] ?? '', { signal });
  if (source === undefined) {
    throw new WeldlineError(
      'convert.source-damaged',
      `${step.id} is made of ${after}, and ${options.sources[after] ?? 'it'} is not finished or was ` +
        'changed. Resume, or run the release again: that file is made anew.',
    );
  }
  const imatrix = await findImatrix(options, source);
  const tools = { 'llama.cpp': llamaCpp.version };
  const settings = {
    type: step.type,
    from: source.manifest.id,
    ...(imatrix === undefined ? {} : { imatrix: imatrix.sha256 }),
    ...(step.splitBytes === undefined ? {} : { splitBytes: step.splitBytes }),
  };
  const key = digestOf({ format: KEY_FORMAT, source: source.manifest.files, settings, tools });
  const facts = { id: step.id, kind: step.kind, key, tools, settings };
  return await make(options, facts, async (target) => {
    options.onProgress?.({ stage: 'quantizing' });
    const model = await readGguf(source.directory);
    await quantizeGguf({
      source: model.files[0] ?? '',
      target,
      type: ggufType(step.type),
      imatrix: imatrix?.path,
      llamaCpp,
      variables: options.tools.variables,
      threads: options.threads,
      stallTimeoutMs: options.tools.stallTimeoutMs,
      signal,
      logFile: options.logFile,
      onFraction: (fraction) => options.onProgress?.({ stage: 'quantizing', fraction }),
    });
    return model;
  });
}

/**
 * @param write writes the file, and gives what it is compared with
 */
async function make(
  options: Options,
  facts: ConversionFacts,
  write: (target: string) => Promise<GgufModel | Shapes>,
): Promise<Conversion> {
  const { step, modelName, directory, signal } = options;
  const name = `${fileNamePart(modelName)}-${step.type}.gguf`;
  const makeFiles = async (partial: string): Promise<ConversionFindings> => {
    const target = join(partial, name);
    try {
      const source = await write(target);
      if (step.splitBytes !== undefined) {
        options.onProgress?.({ stage: 'splitting' });
        await splitGguf(target, step.splitBytes, signal);
      }
      return await checkGguf(partial, options, source);
    } catch (error) {
      throw (await isFull(partial, error)) ? diskFull(partial, error) : error;
    }
  };
  return await makeConversion(directory, facts, makeFiles, signal);
}

/** llama.cpp says that a file could not be written, but not why. */
async function isFull(directory: string, error: unknown): Promise<boolean> {
  if (!(error instanceof WeldlineError && error.code === 'tool.failed')) return false;
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize < FULL_BYTES;
}

function diskFull(directory: string, cause: unknown): WeldlineError {
  return new WeldlineError(
    'disk.full',
    `The disk is full: the conversion in ${directory} cannot be written. Free space and resume; ` +
      'finished conversions are not made again.',
    { cause },
  );
}

async function findImatrix(
  options: Options,
  source: Conversion,
): Promise<{ readonly path: string; readonly sha256: string } | undefined> {
  const { imatrix } = options.step;
  if (imatrix === undefined) return undefined;
  const { signal } = options;
  const given = 'file' in imatrix ? imatrix.file : imatrix.calibration;
  try {
    const path =
      'file' in imatrix ? given : await makeImatrix({ ...options, source, calibration: given });
    return { path, sha256: (await digestFile(path, { signal })).sha256 };
  } catch (error) {
    if (!(error instanceof WeldlineError) || error.code !== 'source.not-found') throw error;
    throw new WeldlineError(
      'convert.imatrix-invalid',
      `imatrix: ${given} is not there any more. Put it back and resume.`,
      { cause: error },
    );
  }
}
