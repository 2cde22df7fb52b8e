import type { ModelFiles } from '../model-files.ts';
import type { Adapter } from './adapter.ts';
import { ADAPTER_CONFIG_FILE } from './adapter-config.ts';

/** What says that an adapter was trained on 4-bit weights. */
export interface FourBitEvidence {
  /** The file that says it, with the adapter's name. */
  readonly file: string;
  /** What it says, as it stands there. */
  readonly value: string;
}

/** Names that 4-bit checkpoints have: `-bnb-4bit`, `-4bit`, `-GPTQ`, `-AWQ`, `-Int4`, `-NF4`. */
const FOUR_BIT_NAME = /(^|[-_./])(4-?bits?|bnb-4-?bit|gptq|awq|int4|w4a16|nf4|fp4)([-_./]|$)/i;

/** Other numbers of bits that such a name may have: `-GPTQ-Int8`. */
const OTHER_BITS = /(^|[-_./])(8-?bits?|int8|w8a16|3-?bits?|2-?bits?)([-_./]|$)/i;

/** How PEFT and trainers write a bitsandbytes configuration into a model card. */
const LOADED_IN_4BIT = /^.*\bload_in_4bit\b["'`*]*\s*[:=]\s*true\b.*$/im;

const CARD_BASE_MODEL = /^base_model:\s*["']?([^\s"']+)/m;

const CARD_FILE = 'README.md';

/** A model card that is larger is no evidence of anything. */
const CARD_BYTES_MAX = 1024 * 1024;

const VALUE_LENGTH_MAX = 120;

/**
 * Looks for what says that an adapter was trained on 4-bit weights: the name of its base, LoftQ's
 * configuration, or its model card. That nothing is found means nothing.
 */
export async function findFourBitEvidence(
  { config, name }: Pick<Adapter, 'config' | 'name'>,
  files: ModelFiles,
): Promise<FourBitEvidence | undefined> {
  const found = (file: string, value: string): FourBitEvidence => ({
    file: `${name}/${file}`,
    value: value.trim().slice(0, VALUE_LENGTH_MAX),
  });
  const { baseModel, loftqBits } = config;
  if (baseModel !== undefined && isFourBitName(baseModel)) {
    return found(ADAPTER_CONFIG_FILE, `base ${JSON.stringify(baseModel)}`);
  }
  if (loftqBits === 4) return found(ADAPTER_CONFIG_FILE, 'loftq_config, loftq_bits 4');
  const card = await readCard(files);
  const loaded = LOADED_IN_4BIT.exec(card)?.[0];
  if (loaded !== undefined) return found(CARD_FILE, loaded);
  const named = CARD_BASE_MODEL.exec(card)?.[1];
  if (named !== undefined && isFourBitName(named)) return found(CARD_FILE, `base_model ${named}`);
  return undefined;
}

function isFourBitName(name: string): boolean {
  return FOUR_BIT_NAME.test(name) && !OTHER_BITS.test(name);
}

async function readCard(files: ModelFiles): Promise<string> {
  const size = files.sizes.get(CARD_FILE) ?? 0;
  if (size === 0 || size > CARD_BYTES_MAX) return '';
  const source = await files.open(CARD_FILE);
  try {
    // What is not UTF-8 says nothing that is looked for, and hinders no merge.
    return new TextDecoder('utf-8').decode(await source.read(0, source.size));
  } finally {
    await source.close();
  }
}
