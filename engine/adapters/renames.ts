/** A name that fits the expression becomes the replacement. */
export type Rename = readonly [RegExp, string];

export interface RenameRule {
  readonly name: string;
  readonly renames: readonly Rename[];
}

/** transformers saves a model without its head under names without the model's prefix. */
const PREFIXES = ['model.', 'transformer.', 'gpt_neox.', 'language_model.'];

/**
 * Towers of models that see or hear, which transformers 5 moved below `model.`; with the text model
 * that went from `language_model.model.` to `model.language_model.`.
 */
const TOWERS =
  '(vision_tower|vision_model|multi_modal_projector|audio_tower|image_newline|vision_embed_tokens)';

/**
 * Rules of llava, llava_next, llava_onevision, gemma3, paligemma, mistral3, internvl, mllama and their
 * like: where the towers are, and whether the one that sees has its layers below `vision_model`
 * (CLIP and SigLIP in transformers 4).
 *
 * @param from what stands before a tower in the adapter, and `to` on disk
 * @param text renames of the text model
 */
function withTowers(name: string, from: string, to: string, text: readonly Rename[]): RenameRule[] {
  const before = from.replace('.', '\\.');
  const towers: Rename = [new RegExp(`^${before}${TOWERS}\\b`), `${to}$1`];
  const within: Rename = [
    new RegExp(`^${before}vision_tower\\.(?!vision_model\\.)`),
    `${to}vision_tower.vision_model.`,
  ];
  const without: Rename = [
    new RegExp(`^${before}vision_tower\\.vision_model\\.`),
    `${to}vision_tower.`,
  ];
  const rules = [
    {
      name: `${name}, vision_tower → vision_tower.vision_model`,
      renames: [...text, within, towers],
    },
    {
      name: `${name}, vision_tower.vision_model → vision_tower`,
      renames: [...text, without, towers],
    },
  ];
  return from === to ? rules : [{ name, renames: [...text, towers] }, ...rules];
}

/**
 * Names in adapters beside names on disk. transformers renames as it loads a checkpoint and back as
 * it saves one; PEFT saves the names of the running model, which are those of the version that the
 * adapter was trained with. So the names of either side can be the older ones. Source:
 * `conversion_mapping.py` of transformers 5 (llava, llava_next, mllama, fuyu, qwen2_audio,
 * Qwen2VLForConditionalGeneration, mixtral, GPTNeoXForCausalLM and the models listed as
 * theirs), `_checkpoint_conversion_mapping` of the classes of transformers 4.52 to 4.57.
 */
export const RENAMES: readonly RenameRule[] = [
  ...PREFIXES.map((prefix) => ({
    name: `without-prefix ${prefix}`,
    renames: [[new RegExp(`^${prefix.replace('.', '\\.')}`), '']] as const,
  })),
  ...PREFIXES.map((prefix) => ({
    name: `with-prefix ${prefix}`,
    renames: [[/^/, prefix]] as const,
  })),
  ...withTowers('llava: model.language_model → language_model.model', 'model.', '', [
    [/^model\.language_model\./, 'language_model.model.'],
    [/^lm_head\./, 'language_model.lm_head.'],
  ]),
  ...withTowers('llava: language_model.model → model.language_model', '', 'model.', [
    [/^language_model\.model\./, 'model.language_model.'],
    [/^language_model\.lm_head\./, 'lm_head.'],
  ]),
  ...withTowers('llava', 'model.', 'model.', []),
  {
    // qwen2_vl, qwen2_5_vl; and adapters of a model that sees on its text model alone.
    name: 'qwen2-vl: model.language_model → model',
    renames: [
      [/^model\.language_model\./, 'model.'],
      [/^model\.visual\./, 'visual.'],
    ],
  },
  {
    name: 'qwen2-vl: model → model.language_model',
    renames: [
      [/^model\.(?!language_model\.|visual\.|vision_tower\.)/, 'model.language_model.'],
      [/^visual\./, 'model.visual.'],
    ],
  },
  {
    // idefics3, smolvlm: adapters of a text model on a model that sees with it, and back.
    name: 'idefics3: model → model.text_model',
    renames: [[/^model\.(?!(text_model|vision_model|connector)\.)/, 'model.text_model.']],
  },
  {
    name: 'idefics3: model.text_model → model',
    renames: [[/^model\.text_model\./, 'model.']],
  },
  {
    // The router; experts are tensors of another shape on either side.
    name: 'mixtral: mlp → block_sparse_moe',
    renames: [[/\.mlp\.(?=(gate|experts)\.)/, '.block_sparse_moe.']],
  },
  {
    name: 'mixtral: block_sparse_moe → mlp',
    renames: [[/\.block_sparse_moe\.(?=(gate|experts)\.)/, '.mlp.']],
  },
  { name: 'gpt-neox: lm_head → embed_out', renames: [[/^lm_head\./, 'embed_out.']] },
  { name: 'gpt-neox: embed_out → lm_head', renames: [[/^embed_out\./, 'lm_head.']] },
];
