import { recognizeFormat } from '../engine/adapters/adapter-format.ts';
import { MODEL_CONFIG_FILE } from '../engine/architectures/model-config.ts';
import { assert, WeldlineError } from '../engine/errors.ts';
import { parseJson } from '../engine/json-text.ts';
import { type ModelFiles, readTextFile } from '../engine/model-files.ts';
import type { PythonTools } from '../tools/python-tools.ts';
import type { CandidateStep } from './candidate.ts';

const FORMAT_NAMES = { mlx: "MLX's", kohya: "kohya's" } as const;

/**
 * Refuses to run adapters unmerged that PEFT does not load. weldline merges them, but what is merged
 * is compared with the adapter on its base, and that it could not be would come out after the merge.
 *
 * @param models files of the adapters, by their ids
 * @throws WeldlineError `evaluate.adapter-unsupported`; what `recognizeFormat` throws
 */
export async function requirePeftAdapters(
  candidates: readonly CandidateStep[],
  models: Readonly<Record<string, ModelFiles>>,
): Promise<void> {
  for (const { id: candidate, kind, runner } of candidates) {
    if (kind !== 'adapter' || runner !== 'transformers') continue;
    const id = candidate.slice('adapter:'.length);
    const files = models[id];
    assert(files !== undefined, `the adapter ${id} has no files`);
    const { format } = await recognizeFormat(files);
    if (format === 'peft' || format === 'peft-pickle') continue;
    throw new WeldlineError(
      'evaluate.adapter-unsupported',
      `The adapter ${id} is in ${FORMAT_NAMES[format]} format, which PEFT does not run, so there would be ` +
        'nothing to compare the merged model with. Serve it on its base and name it under ' +
        `evaluate.endpoint.models ("${candidate}": …), save it in PEFT's format, or leave evaluate out.`,
    );
  }
}

/** What transformers runs with packages that weldline does not install (gptqmodel, for a GPU). */
const METHODS_NOT_RUN: readonly unknown[] = ['gptq', 'awq'];

/**
 * Refuses to run a base that weldline's Python tools cannot load, before the merge.
 *
 * @param python a Python of the user's own may have what is missing
 * @throws WeldlineError `evaluate.base-unsupported`
 */
export async function requireRunnableBase(
  candidates: readonly CandidateStep[],
  base: ModelFiles,
  python: PythonTools | undefined,
): Promise<void> {
  const run = candidates.filter(
    ({ kind, runner }) => runner === 'transformers' && (kind === 'base' || kind === 'adapter'),
  );
  if (run.length === 0 || python?.origin === 'setting' || !base.sizes.has(MODEL_CONFIG_FILE))
    return;
  const config = parseJson(await readTextFile(base, MODEL_CONFIG_FILE));
  const { quantization_config: quantization } = config as {
    quantization_config?: { quant_method?: unknown };
  };
  const method = quantization?.quant_method;
  if (!METHODS_NOT_RUN.includes(method)) return;
  throw new WeldlineError(
    'evaluate.base-unsupported',
    `The base is quantized by ${method}, which weldline merges and its Python tools do not run, so there ` +
      'would be nothing to compare the merged model with. Have a server run it (evaluate.endpoint.models: ' +
      `${run.map(({ id }) => `"${id}"`).join(', ')}), merge onto the base in 16 bits, or leave evaluate out.`,
  );
}
