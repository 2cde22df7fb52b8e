import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { IntegerConversion } from '../../config/release-quality.ts';
import { checkFailed } from './check-failed.ts';
import type { IgnoredModules } from './integer-modules.ts';

type Config = Readonly<Record<string, unknown>>;

/** What llm-compressor may say anew: a head that was tied becomes a layer of its own. */
const MAY_CHANGE = new Set(['quantization_config', 'tie_word_embeddings']);

const quantizationSchema = z.looseObject({
  quant_method: z.string(),
  format: z.string(),
  ignore: z.array(z.string()).nullish(),
  config_groups: z.record(
    z.string(),
    z.looseObject({
      targets: z.array(z.string()),
      input_activations: z.null().optional(),
      weights: z.looseObject({
        num_bits: z.number(),
        type: z.string(),
        strategy: z.string(),
        group_size: z.number(),
        symmetric: z.boolean(),
      }),
    }),
  ),
});

/**
 * Compares the config.json of a quantised checkpoint with what was asked for, and in all else with
 * that of the merged one.
 *
 * @throws WeldlineError `convert.check-failed`
 */
export function checkConfig(
  config: Config,
  merged: Config,
  settings: IntegerConversion,
  { quantised, ignored }: IgnoredModules,
): void {
  const parsed = quantizationSchema.safeParse(config['quantization_config']);
  if (!parsed.success) throw checkFailed('its config.json has no quantization_config of this kind');
  const { quant_method, format, config_groups, ignore } = parsed.data;
  const groups = Object.values(config_groups);
  const [group] = groups;
  const { bits, groupSize, symmetric } = settings;
  const expected = {
    ...{ method: 'compressed-tensors', format: 'pack-quantized', groups: 1, targets: ['Linear'] },
    ...{ type: 'int', strategy: 'group', bits, groupSize, symmetric },
  };
  const found = {
    ...{ method: quant_method, format, groups: groups.length, targets: group?.targets },
    ...{ type: group?.weights.type, strategy: group?.weights.strategy },
    ...{ bits: group?.weights.num_bits, groupSize: group?.weights.group_size },
    symmetric: group?.weights.symmetric,
  };
  if (!isDeepStrictEqual(found, expected)) {
    throw checkFailed(
      `its quantization_config is ${JSON.stringify(found)} and not ${JSON.stringify(expected)}`,
    );
  }
  const kept = new Set(ignore ?? []);
  if (ignored.some(({ name }) => !kept.has(name)) || quantised.some(({ name }) => kept.has(name))) {
    const wanted = ignored.map(({ name }) => name);
    throw checkFailed(
      `its quantization_config ignores [${[...kept].join(', ')}] and not [${wanted.join(', ')}]`,
    );
  }
  for (const key of new Set([...Object.keys(config), ...Object.keys(merged)])) {
    if (MAY_CHANGE.has(key) || isDeepStrictEqual(config[key], merged[key])) continue;
    throw checkFailed(`its config.json says something else than the merged one of ${key}`);
  }
}
