import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasPlainModules } from '../../engine/architectures/linear-modules.ts';
import { WeldlineError } from '../../engine/errors.ts';
import { parseJson } from '../../engine/json-text.ts';
import type { IntegerStep } from '../conversion-step.ts';
import type { ModelFacts } from '../convert-options.ts';
import { warnOfCost } from './integer-costs.ts';
import { type IntegerModule, ignoreModules, linearModules } from './integer-modules.ts';
import { type Calibration, readCalibration } from './read-calibration.ts';

/**
 * Architectures whose layers AWQ can balance: those of llm-compressor's table (AWQ_MAPPING_REGISTRY)
 * and some that its default fits. With each a model in 8 bits was compared with the original. For any
 * other it takes the default, and fails after loading the model (phi, stablelm, olmo2, glm4, …).
 */
const AWQ_ARCHITECTURES = new Set([
  ...['cohere', 'cohere2', 'exaone4', 'gemma', 'gemma2', 'gemma3_text', 'granite', 'helium'],
  ...['llama', 'ministral', 'mistral', 'olmo', 'olmo3', 'phi3', 'qwen2', 'qwen3', 'seed_oss'],
  'smollm3',
]);

/**
 * Layers of GPT-2 are Conv1D, which llm-compressor leaves as they are; the head of GPT-NeoX has another
 * name in transformers than in the checkpoint, so an ignore list would mean two things.
 */
const UNFIT = new Set(['gpt2', 'gpt_neox']);

/** Groups that vLLM's kernels for integer weights take. */
const SERVED_GROUPS = [32, 64, 128];
const GROUP_SIZE_MIN = 16;
/** What an error lists of many. */
const LISTED_MAX = 5;

/**
 * Finds before the merge what would fail or disappoint hours later.
 *
 * @returns warnings, one sentence or two each
 * @throws WeldlineError `convert.bad-group-size`, `convert.bad-ignore`, `convert.bad-calibration`,
 *   `convert.unsupported-architecture`; `tool.not-found` without Python tools
 */
export async function preflightIntegers(
  steps: readonly IntegerStep[],
  model: ModelFacts,
): Promise<readonly string[]> {
  const warnings: string[] = [];
  for (const step of steps) {
    checkArchitecture(step, model);
    const modules = ignoreModules(linearModules(model.tensors), step.settings.ignore);
    if (modules.quantised.length === 0) {
      throw new WeldlineError(
        'convert.bad-ignore',
        `${step.id}: ignore leaves no layer to quantise. Take entries out of the list.`,
      );
    }
    checkGroupSize(step, modules.quantised);
    const calibration = await readCalibration(step.settings.calibration);
    checkTemplate(step, calibration, model);
    const found = [
      ...warnOfIgnore(modules.unmatched),
      ...warnOfGroups(step),
      ...warnOfSamples(step, calibration, model),
      ...warnOfCost(step, model.tensors),
    ];
    warnings.push(...found.map((warning) => `${step.id}: ${warning}`));
  }
  return warnings;
}

function checkArchitecture({ id, kind }: IntegerStep, { config }: ModelFacts): void {
  const type = String(config['model_type'] ?? 'none');
  if (!hasPlainModules(type) || UNFIT.has(type)) {
    throw new WeldlineError(
      'convert.unsupported-architecture',
      `${id}: weldline does not know which layers of the architecture "${type}" llm-compressor ` +
        'quantises: it knows models of plain linear layers (llama, qwen3, gemma2, phi3, …), without ' +
        'experts or vision. Take this conversion out of the recipe.',
    );
  }
  if (kind === 'awq' && !AWQ_ARCHITECTURES.has(type)) {
    throw new WeldlineError(
      'convert.unsupported-architecture',
      `${id}: AWQ scales each layer against what comes before it, and llm-compressor does not know what ` +
        `that is in the architecture "${type}". Use gptq.`,
    );
  }
}

function checkGroupSize({ id, settings }: IntegerStep, modules: readonly IntegerModule[]): void {
  const { groupSize } = settings;
  const unfit = modules.filter(({ columns }) => columns % groupSize !== 0);
  if (unfit.length === 0) return;
  const common = modules.map(({ columns }) => columns).reduce(greatestCommonDivisor);
  const fitting = divisorsOf(common).filter((size) => size >= GROUP_SIZE_MIN);
  const listed = unfit
    .slice(0, LISTED_MAX)
    .map(({ name, columns }) => `${name} (${columns} inputs)`);
  const others = unfit.length > LISTED_MAX ? `, and ${unfit.length - LISTED_MAX} more` : '';
  const remedy =
    fitting.length === 0
      ? 'No group size divides all of them: put the odd ones on the ignore list.'
      : `These group sizes divide all widths: ${fitting.join(', ')}.`;
  throw new WeldlineError(
    'convert.bad-group-size',
    `${id}: a group of ${groupSize} weights does not divide the width of ${listed.join(', ')}${others}. ` +
      remedy,
  );
}

function checkTemplate(
  { id, settings }: IntegerStep,
  { firstChatLine }: Calibration,
  { directory }: ModelFacts,
): void {
  if (firstChatLine === undefined || hasChatTemplate(directory)) return;
  throw new WeldlineError(
    'convert.bad-calibration',
    `${id}: ${settings.calibration}:${firstChatLine} has messages, and the model has no chat template ` +
      'to write them with. Give "text" as the model will see it.',
  );
}

function warnOfIgnore(unmatched: readonly string[]): string[] {
  return unmatched.map(
    (entry) =>
      `ignore has ${entry}, which is no layer of this model. A pattern begins with "re:" and ` +
      'matches from the beginning of the name.',
  );
}

function warnOfGroups({ settings }: IntegerStep): string[] {
  if (SERVED_GROUPS.includes(settings.groupSize)) return [];
  return [
    `vLLM has kernels for groups of ${SERVED_GROUPS.join(', ')} only, not of ${settings.groupSize}: ` +
      'transformers loads the result, vLLM may not.',
  ];
}

/**
 * Fewer samples than asked for are no error: the default is a number for large data, and a few of
 * the right texts beat many of others. What they cost is said when their tokens are known.
 */
function warnOfSamples(
  { settings }: IntegerStep,
  { samples }: Calibration,
  { config }: ModelFacts,
): string[] {
  const positions = config['max_position_embeddings'];
  const warnings: string[] = [];
  if (typeof positions === 'number' && settings.sequenceLength > positions) {
    warnings.push(
      `the model has ${positions} positions, so samples are cut to that many tokens and not to ` +
        `${settings.sequenceLength}.`,
    );
  }
  const isText = samples.some((sample) => 'stretch' in sample);
  if (!isText && samples.length < settings.samples) {
    warnings.push(
      `${settings.calibration} has ${samples.length} samples where ${settings.samples} are asked for.`,
    );
  }
  return warnings;
}

/** In a file of its own, or among the tokenizer's settings. */
function hasChatTemplate(directory: string): boolean {
  if (existsSync(join(directory, 'chat_template.jinja'))) return true;
  try {
    const settings = parseJson(readFileSync(join(directory, 'tokenizer_config.json'), 'utf8'));
    const template = (settings as { chat_template?: unknown } | null)?.chat_template;
    return template !== undefined && template !== null;
  } catch {
    return false;
  }
}

function greatestCommonDivisor(one: number, other: number): number {
  return other === 0 ? one : greatestCommonDivisor(other, one % other);
}

/** Largest first. */
function divisorsOf(value: number): number[] {
  const divisors: number[] = [];
  for (let divisor = 1; divisor * divisor <= value; divisor++) {
    if (value % divisor === 0) divisors.push(divisor, value / divisor);
  }
  return [...new Set(divisors)].sort((one, other) => other - one);
}
