import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ADAPTER_CONFIG_FILE } from '../../engine/adapters/adapter-config.ts';
import { digestOf } from '../../engine/canonical-json.ts';
import { digestFile } from '../../engine/durable-files.ts';
import { assert } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import type { GgufAdapterStep } from '../conversion-step.ts';
import { type ConversionFindings, makeConversion } from '../conversion-store.ts';
import type { Conversion, ConvertOptions } from '../convert-options.ts';
import { type GgufAdapter, readGgufAdapter } from './gguf-adapter.ts';
import { damaged, readGguf } from './gguf-model.ts';
import { fileNamePart } from './gguf-name.ts';
import { converterVersions, LORA_CONVERTER, runConverter } from './run-converter.ts';
import { scanBlocks } from './scan-blocks.ts';

/** Counts changes of what is made from the same inputs by the same tools. */
const KEY_FORMAT = 1;
/** The converter's own default; it holds every dtype that adapters are trained in. */
const TYPE = 'f32';

/**
 * A LoRA adapter as a GGUF file, for `--lora` of llama.cpp, on the base that it was trained on.
 *
 * @throws WeldlineError `convert.adapter-unsupported`, `convert.check-failed`, `tool.*`, `disk.*`
 */
export async function convertAdapter(
  options: ConvertOptions<GgufAdapterStep>,
): Promise<Conversion> {
  const { step, base, directory, signal } = options;
  const source = options.adapters[step.adapter];
  assert(source !== undefined, `a step converts the adapter ${step.adapter}, which is not given`);
  const adapter = await readGgufAdapter(step.adapter, source);
  const inputs = await digestsOf([
    join(source, ADAPTER_CONFIG_FILE),
    join(source, adapter.weightsFile),
    join(base, 'config.json'),
  ]);
  const tools = converterVersions(options.tools);
  const settings = { adapter: step.adapter, type: TYPE.toUpperCase(), alpha: adapter.alpha };
  const key = digestOf({ format: KEY_FORMAT, inputs, settings, tools });
  const facts = { id: step.id, kind: step.kind, key, tools, settings };
  const make = async (partial: string): Promise<ConversionFindings> => {
    const name = fileNamePart(step.adapter);
    const links = join(partial, '.names');
    await linkAdapter(join(links, name), source, adapter);
    await symlink(resolve(base), join(links, 'base'));
    await runConverter({
      script: LORA_CONVERTER,
      args: [
        join(links, name),
        ...['--base', join(links, 'base'), '--outtype', TYPE],
        ...['--outfile', join(partial, `${name}-lora.gguf`)],
      ],
      tools: options.tools,
      signal,
      logFile: options.logFile,
      onFraction: (fraction) => options.onProgress?.({ stage: 'converting', fraction }),
    });
    await rm(links, { recursive: true });
    return await checkAdapter(partial, adapter, signal);
  };
  return await makeConversion(directory, facts, make, signal);
}

/**
 * The adapter under its own name, which the converter takes for the file's metadata, and with the
 * alpha that llama.cpp divides by the rank.
 */
async function linkAdapter(link: string, source: string, adapter: GgufAdapter): Promise<void> {
  await mkdir(link, { recursive: true });
  await symlink(resolve(source, adapter.weightsFile), join(link, adapter.weightsFile));
  const config = parseJson(await readFile(join(source, ADAPTER_CONFIG_FILE), 'utf8'));
  const text = JSON.stringify({ ...(config as object), lora_alpha: adapter.alpha });
  await writeFile(join(link, ADAPTER_CONFIG_FILE), text);
}

async function checkAdapter(
  directory: string,
  { alpha, modules }: GgufAdapter,
  signal: AbortSignal | undefined,
): Promise<ConversionFindings> {
  const model = await readGguf(directory);
  const [file = ''] = model.files;
  const { metadata, tensors } = model;
  if (metadata['general.type'] !== 'adapter' || metadata['adapter.type'] !== 'lora') {
    throw damaged(file, 'does not say that it is a LoRA adapter');
  }
  if (metadata['adapter.lora.alpha'] !== Math.fround(alpha)) {
    throw damaged(file, `has alpha ${String(metadata['adapter.lora.alpha'])}, not ${alpha}`);
  }
  const first = [...tensors.keys()].filter((name) => name.endsWith('.lora_a'));
  const alone = first.find((name) => !tensors.has(name.replace(/a$/, 'b')));
  if (alone !== undefined) throw damaged(file, `has ${alone} without its other half`);
  if (first.length < modules.length) {
    throw damaged(file, `has ${first.length} pairs of the adapter's ${modules.length}`);
  }
  await scanBlocks(model, { signal });
  return {
    checks: [
      `All ${modules.length} pairs of the adapter are there, with alpha ${alpha}.`,
      'None of its weights is infinite or NaN.',
    ],
    warnings: [],
  };
}

async function digestsOf(paths: readonly string[]): Promise<readonly string[]> {
  return await Promise.all(paths.map(async (path) => (await digestFile(path)).sha256));
}
