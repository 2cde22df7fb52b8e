import {
  ADAPTER_PICKLE_FILE,
  ADAPTER_WEIGHTS_FILE,
  MLX_WEIGHTS_FILE,
} from '../engine/adapters/adapter-format.ts';
import { MANIFEST_FILE } from '../engine/manifest.ts';
import { INDEX_FILE } from '../engine/safetensors/weight-index.ts';

/** Files that name others. */
export const LISTING_FILES: readonly string[] = [
  INDEX_FILE,
  'release.json',
  MANIFEST_FILE,
  'conversion.json',
];

/** The names that files of models, adapters and releases have, for places that cannot list theirs. */
export const KNOWN_FILES: readonly string[] = [
  ...LISTING_FILES,
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'adapter_config.json',
  ADAPTER_WEIGHTS_FILE,
  MLX_WEIGHTS_FILE,
  ADAPTER_PICKLE_FILE,
  ...['tokenizer.json', 'tokenizer_config.json', 'tokenizer.model', 'special_tokens_map.json'],
  ...['added_tokens.json', 'vocab.json', 'vocab.txt', 'merges.txt', 'tekken.json'],
  ...['spiece.model', 'sentencepiece.model', 'sentencepiece.bpe.model', 'qwen.tiktoken'],
  ...['chat_template.jinja', 'chat_template.json'],
  ...['preprocessor_config.json', 'processor_config.json', 'image_processor_config.json'],
  'video_preprocessor_config.json',
  ...['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'NOTICE', 'NOTICE.txt', 'USE_POLICY.md', 'README.md'],
  ...['model.sig', 'provenance.intoto.json', 'bom.cdx.json', 'pruned.json'],
];
