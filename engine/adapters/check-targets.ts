import type { TiedEmbeddings } from '../architectures/tied-embeddings.ts';
import { WeldlineError } from '../errors.ts';
import type { Checkpoint } from '../safetensors/checkpoint.ts';
import type { Adapter } from './adapter.ts';
import type { BindingRule } from './binding-rule.ts';

/**
 * Checks that every module the configuration targets has tensors: PEFT injects a pair into each
 * module whose path ends with a target's name, so a base module that matches and has none was lost
 * when the adapter was saved, and its part of the training would be dropped in silence.
 *
 * Only decidable for a list of names that nothing narrows.
 * @throws WeldlineError `adapter.target-without-tensors`
 */
export function checkTargets(
  adapter: Adapter,
  checkpoint: Checkpoint,
  bound: Pick<ReadonlyMap<string, unknown>, 'has'>,
  rule: BindingRule,
): void {
  const targets = adapter.config.targetModules;
  if (!Array.isArray(targets) || adapter.config.targetsAreNarrowed) return;
  // transformers keeps the head and modules_to_save out of what a name targets.
  const excluded = new Set(adapter.config.modulesToSave);
  // Sets, because both the targets and the tensors can be tens of thousands.
  const names = new Set<string>(targets);
  const paths = new Set(targets.map((target: string) => rule.toDisk(target)));
  const missing: string[] = [];
  for (const [name, { shape }] of checkpoint.tensors) {
    if (!name.endsWith('.weight') || shape.length !== 2 || bound.has(name)) continue;
    const module = name.slice(0, -'.weight'.length);
    const isTarget = paths.has(module) || hasEnding(module, names);
    if (isTarget && !hasEnding(module, excluded)) missing.push(module);
  }
  if (missing.length === 0) return;
  throw new WeldlineError(
    'adapter.target-without-tensors',
    `adapter_config.json of "${adapter.id}" targets ${missing.length} modules of the base for ` +
      `which the adapter has no tensors (${missing.slice(0, 3).join(', ')}, …). Part of the ` +
      'adapter was lost when it was saved; save it again. If those modules were never trained, ' +
      'narrow target_modules in a copy of the adapter.',
    { details: { missing: missing.slice(0, 20) } },
  );
}

/**
 * Checks that biases which were trained with the adapter are in it: older versions of PEFT lost
 * those of `bias: lora_only` when they saved.
 *
 * @param deltas bound weights, by name
 * @throws WeldlineError `adapter.target-without-tensors`
 */
export function checkBiases(
  adapter: Adapter,
  checkpoint: Checkpoint,
  deltas: Pick<ReadonlyMap<string, unknown>, 'has'>,
  replacements: ReadonlyMap<string, unknown>,
): void {
  const { trainedBiases } = adapter.config;
  if (trainedBiases === 'none') return;
  const missing: string[] = [];
  for (const [name, { shape }] of checkpoint.tensors) {
    // Buffers of attention masks have the name of a bias, and more dimensions.
    if (!name.endsWith('.bias') || shape.length !== 1 || replacements.has(name)) continue;
    const weight = name.replace(/bias$/, 'weight');
    if (trainedBiases === 'all' || deltas.has(weight)) missing.push(name);
  }
  if (missing.length === 0) return;
  throw new WeldlineError(
    'adapter.target-without-tensors',
    `adapter_config.json of "${adapter.id}" says that biases were trained (bias: ` +
      `${trainedBiases}), and the adapter lacks ${missing.length} of them ` +
      `(${missing.slice(0, 3).join(', ')}, …). They were lost when it was saved; save it again with ` +
      'a current PEFT.',
    { details: { missing: missing.slice(0, 20) } },
  );
}

/**
 * Checks that modules which were trained in full are in the adapter: PEFT saves every weight of a
 * module that `modules_to_save` names, so one that is not there was lost.
 *
 * @param bound weights that the adapter replaces or changes, by name
 * @throws WeldlineError `adapter.target-without-tensors`
 */
export function checkSaved(
  adapter: Adapter,
  checkpoint: Checkpoint,
  tied: TiedEmbeddings | undefined,
  bound: Pick<ReadonlyMap<string, unknown>, 'has'>,
): void {
  const { modulesToSave, ensureWeightTying } = adapter.config;
  if (modulesToSave.length === 0) return;
  const saved = new Set(modulesToSave);
  const weights = [...checkpoint.tensors.keys()].filter((name) => name.endsWith('.weight'));
  // The head of a tied pair is not on disk; trained as one, either side stands for both.
  const sides = tied === undefined ? [] : [tied.head, tied.embedding];
  const isAnySide = ensureWeightTying && sides.some((side) => bound.has(side));
  const missing = [...new Set([...weights, ...sides])].filter((name) => {
    if (bound.has(name) || (isAnySide && sides.includes(name))) return false;
    return isWithin(name.slice(0, -'.weight'.length), saved);
  });
  if (missing.length === 0) return;
  throw new WeldlineError(
    'adapter.target-without-tensors',
    `adapter_config.json of "${adapter.id}" says that modules were trained in full ` +
      `(modules_to_save), and the adapter lacks ${missing.length} of their weights ` +
      `(${missing.slice(0, 3).join(', ')}, …). They were lost when it was saved; save it again. If ` +
      'they were never trained, take them out of modules_to_save in a copy of the adapter.',
    { details: { missing: missing.slice(0, 20) } },
  );
}

/** Whether the module, or one that it is in, has a path that ends with one of the names. */
function isWithin(module: string, names: ReadonlySet<string>): boolean {
  if (hasEnding(module, names)) return true;
  const dot = module.lastIndexOf('.');
  return dot > 0 && isWithin(module.slice(0, dot), names);
}

/** Whether the path, or what follows one of its dots, is among the names. */
function hasEnding(module: string, names: ReadonlySet<string>): boolean {
  if (names.has(module)) return true;
  for (let dot = module.indexOf('.'); dot >= 0; dot = module.indexOf('.', dot + 1)) {
    if (names.has(module.slice(dot + 1))) return true;
  }
  return false;
}
