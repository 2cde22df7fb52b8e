import type { ConversionStep, GgufAdapterStep, GgufStep, IntegerStep } from './conversion-step.ts';
import type { ConversionTools, ModelFacts } from './convert-options.ts';
import { preflightAdapters } from './gguf/preflight-adapters.ts';
import { preflightGguf } from './gguf/preflight-gguf.ts';
import { preflightIntegers } from './integer/preflight-integers.ts';

export interface PreflightOptions {
  readonly steps: readonly ConversionStep[];
  readonly model: ModelFacts;
  readonly tools: ConversionTools;
  /** Directories of the adapters, by id; for steps that convert some. */
  readonly adapters?: Readonly<Record<string, string>>;
  /** The share of the adapters' deltas that survives the rounding of the merge, where it is known. */
  readonly retention?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly logFile?: string | undefined;
}

/**
 * Finds before the merge what would fail or disappoint after it.
 *
 * @returns warnings, one sentence or two each
 * @throws WeldlineError `convert.*`, `tool.*`
 */
export async function preflightConversions(options: PreflightOptions): Promise<readonly string[]> {
  const { steps, model, adapters = {} } = options;
  const integers = steps.filter(
    (step): step is IntegerStep => step.kind === 'awq' || step.kind === 'gptq',
  );
  const ggufs = steps.filter((step): step is GgufStep => step.kind === 'gguf');
  const ggufAdapters = steps.filter(
    (step): step is GgufAdapterStep => step.kind === 'gguf-adapter',
  );
  await preflightAdapters(ggufAdapters, adapters, model);
  return [...(await preflightIntegers(integers, model)), ...(await preflightGguf(ggufs, options))];
}
