import { WeldlineError } from '../errors.ts';
import { PLAIN_PATH, type UnreadFile, type UnreadSideFile } from './plan.ts';

/**
 * Vocabulary files: an adapter's own win one by one, and what it lacks comes from the base (the
 * GGUF converter needs `tokenizer.model`, which trainers often do not save).
 */
const VOCABULARY_FILES = new Set([
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer.model.v3',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'spiece.model',
  'sentencepiece.bpe.model',
  'tekken.json',
]);

/** What an adapter was trained with; it wins over a template in any tokenizer_config.json. */
const CHAT_TEMPLATE = 'chat_template.jinja';

/**
 * How text becomes tokens around the vocabulary. These only make sense together: a base's
 * chat_template.jinja would win over the template in an adapter's tokenizer_config.json. So an
 * adapter that ships tokenizer_config.json brings all of them.
 */
const TOKENIZER_SETTINGS = new Set([
  CHAT_TEMPLATE,
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.json',
]);

/** Files of the base that a release needs to load anywhere, or must carry by its licence. */
const BASE_FILE =
  /^(config\.json|generation_config\.json|((video_)?pre)?processor_config\.json|[^/]+\.(tiktoken|py)|(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([.-][^/]*)?)$/i;

/**
 * Chooses the files beside the weights. They are copied byte for byte, save the edits of
 * config.json that the plan lists.
 *
 * @param base files of the base
 * @param adapter files of the adapter, and its id
 * @throws WeldlineError `side-file.unsafe` for a name that is not plain
 */
export function chooseSideFiles(
  base: readonly UnreadFile[],
  adapter: { readonly id: string; readonly files: readonly UnreadFile[] },
): UnreadSideFile[] {
  const chosen = new Map<string, UnreadSideFile>();
  const adapterHasTokenizer = adapter.files.some((file) => file.path === 'tokenizer_config.json');
  for (const file of base) {
    const isSetting = TOKENIZER_SETTINGS.has(file.path);
    if (isSetting ? adapterHasTokenizer : !isVocabulary(file) && !BASE_FILE.test(file.path)) {
      continue;
    }
    chosen.set(file.path, { input: 'base', ...file });
  }
  for (const file of adapter.files) {
    const comes = adapterHasTokenizer
      ? TOKENIZER_SETTINGS.has(file.path) || isVocabulary(file)
      : file.path === CHAT_TEMPLATE;
    if (comes) chosen.set(file.path, { input: adapter.id, ...file });
  }
  const unsafe = [...chosen.keys()].find((path) => !PLAIN_PATH.test(path));
  if (unsafe !== undefined) {
    throw new WeldlineError(
      'side-file.unsafe',
      `The file ${JSON.stringify(unsafe.slice(0, 100))} goes beside the weights, but its name has ` +
        'other characters than letters, digits, ".", "_", "-" and spaces. Rename it.',
    );
  }
  return [...chosen.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Whether a file can stand beside the weights of a release. */
export function isSideFile(path: string): boolean {
  return VOCABULARY_FILES.has(path) || TOKENIZER_SETTINGS.has(path) || BASE_FILE.test(path);
}

function isVocabulary(file: UnreadFile): boolean {
  return VOCABULARY_FILES.has(file.path);
}
