import { assert } from '../../errors.ts';
import type { LoraConfig } from '../adapter-config.ts';
import type { LoraPair } from '../lora-pair.ts';
import { scalingsOf } from '../scaling.ts';
import type { FoundParts } from './find-parts.ts';
import { adaLoraPairs, veraPairs } from './low-rank.ts';
import { lohaChanges, lokrChanges } from './lycoris.ts';
import type { ModuleChange } from './module-change.ts';
import { oftChanges } from './oft.ts';
import { ia3Changes } from './scaling-vectors.ts';

/** What an adapter beside LoRA has for the modules of the base. */
export interface ReadModules {
  readonly pairs: readonly LoraPair[];
  readonly changes: readonly ModuleChange[];
  readonly untouched: readonly string[];
}

/**
 * Reads the modules of an adapter of a kind beside LoRA.
 *
 * @param where the adapter, for errors
 * @throws WeldlineError `adapter.half-pair`, `adapter.bad-shape`, `adapter.rank-mismatch`,
 *   `adapter.bad-pattern`, `adapter.unsupported-feature`
 */
export function readModules(config: LoraConfig, found: FoundParts, where: string): ReadModules {
  const { kind } = config;
  const modules = found.modules.map(({ module }) => module);
  const none = { pairs: [], changes: [], untouched: [] };
  switch (kind.type) {
    case 'ADALORA': {
      const pairs = adaLoraPairs(kind, config.loraAlpha, found, where);
      const kept = new Set(pairs.map(({ module }) => module));
      return { ...none, pairs, untouched: modules.filter((module) => !kept.has(module)) };
    }
    case 'VERA':
      return { ...none, pairs: veraPairs(config.r, found, where) };
    case 'LOHA':
      return { ...none, changes: lohaChanges(found, scalingsOf(config, modules, where), where) };
    case 'LOKR':
      return { ...none, changes: lokrChanges(found, scalingsOf(config, modules, where), where) };
    case 'IA3':
      return { ...none, changes: ia3Changes(found, where) };
    case 'OFT':
      return { ...none, changes: oftChanges(kind, found, where) };
    default:
      assert(kind.type !== 'LORA', 'LoRA is read elsewhere');
      return none;
  }
}
