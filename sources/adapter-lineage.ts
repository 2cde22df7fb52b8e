/** What adapters were trained on: a base, or another adapter, and so on down to a base. */
import { realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { ADAPTER_CONFIG_FILE } from '../engine/adapters/adapter-config.ts';
import {
  type AdapterBelow,
  type AdapterLineage,
  checkLineage,
  hubIdentity,
  isHubName,
  type TrainedOn,
} from '../engine/adapters/adapter-lineage.ts';
import { WeldlineError } from '../engine/errors.ts';
import { parseJson } from '../engine/json-text.ts';
import { type ModelFiles, readTextFile } from '../engine/model-files.ts';
import type { Combination } from '../engine/plan/combination.ts';
import { resolveHubModel } from './hub-model.ts';
import { hubModelFiles } from './hub-model-files.ts';
import { openModelDirectory } from './model-directory.ts';
import type { LocatedModel, ModelAccess } from './model-input.ts';

/** More stages of training than anyone stacks. */
const CHAIN_LENGTH_MAX = 8;

/** Of a hub's answers: it is no adapter that could be merged first. */
const UNKNOWN_TO_US = new Set(['hub.not-found', 'hub.gated', 'hub.unauthorized']);

export interface NamedAdapter {
  readonly id: string;
  /** As it was asked for. */
  readonly model: string;
  readonly located: LocatedModel;
  /** Where its files are. */
  readonly directory: string;
}

export interface LineageOptions {
  /**
   * Whether to look names up on the hub that are no directories. Without any model on a hub nobody is
   * asked, so that a merge of directories needs no network.
   */
  readonly askHub: boolean;
  /** How adapters are combined, where there are several. */
  readonly combination: Combination | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An adapter in a chain, and its files. */
interface Place extends AdapterBelow {
  readonly files: ModelFiles;
  /** What relative paths are relative to; a repository of others names nothing on this machine. */
  readonly directory: string | undefined;
}

/**
 * Checks that adapters are merged onto what they were trained on, as far as names tell.
 * @returns warnings
 * @throws WeldlineError `adapter.chain`, `adapter.other-base`, `hub.*`
 */
export async function checkTrainedOn(
  access: ModelAccess,
  base: LocatedModel,
  adapters: readonly NamedAdapter[],
  { askHub, combination, signal }: LineageOptions,
): Promise<readonly string[]> {
  const onHub = base.kind === 'hub' ? base : undefined;
  const isOnline = askHub && [base, ...adapters.map(({ located }) => located)].some(isHub);
  const lookUp = async (name: string): Promise<Place | undefined> =>
    isOnline && onHub?.repo.toLowerCase() !== name.toLowerCase()
      ? findOnHub(access, name, signal)
      : undefined;
  const lineages: AdapterLineage[] = [];
  for (const adapter of adapters) lineages.push(await lineageOf(adapter, lookUp));
  return checkLineage(onHub, lineages, combination);
}

function isHub(model: LocatedModel): boolean {
  return model.kind === 'hub';
}

async function lineageOf(
  { id, model, located, directory }: NamedAdapter,
  lookUp: (name: string) => Promise<Place | undefined>,
): Promise<AdapterLineage> {
  const files = await openModelDirectory(directory);
  const start: Place = {
    model,
    identity: await identityIn(located, directory),
    files,
    directory: located.kind === 'directory' ? directory : undefined,
  };
  const trainedOn = await readTrainedOn(files);
  const below: Place[] = [];
  let name = trainedOn?.name;
  for (let place = start; name !== undefined; name = (await readTrainedOn(place.files))?.name) {
    const next =
      (await findBeside(name, place)) ?? (isHubName(name) ? await lookUp(name) : undefined);
    if (next === undefined) break;
    below.push(next);
    checkEnd(id, start, below);
    place = next;
  }
  const isDora = await isDoraAdapter(files);
  return { id, model, identity: start.identity, trainedOn, below, isDora };
}

async function identityIn(located: LocatedModel, directory: string): Promise<string> {
  if (located.kind === 'hub') return hubIdentity(located.repo, located.folder);
  return located.kind === 'remote' ? located.model.uri : realpath(directory);
}

function checkEnd(id: string, start: AdapterBelow, below: readonly AdapterBelow[]): void {
  const identities = [start, ...below].map(({ identity }) => identity);
  const isCycle = new Set(identities).size < identities.length;
  if (!isCycle && below.length <= CHAIN_LENGTH_MAX) return;
  throw new WeldlineError(
    'adapter.chain',
    `Adapter "${id}" was trained on top of others ${isCycle ? 'in a circle' : 'without end'}: ` +
      `${[start, ...below]
        .map(({ model }) => model)
        .join(' → ')
        .slice(0, 300)}. Correct ` +
      `base_model_name_or_path in their ${ADAPTER_CONFIG_FILE}.`,
  );
}

/** A path in a configuration is relative to the adapter, or to where the training ran. */
async function findBeside(name: string, { directory }: Place): Promise<Place | undefined> {
  if (directory === undefined || name === '' || name.includes('\0')) return undefined;
  for (const path of new Set([resolve(directory, name), resolve(name)])) {
    const files = await openModelDirectory(path).catch(() => undefined);
    if (files === undefined || !isAdapter(files)) continue;
    return { model: path, identity: await realpath(path), files, directory: path };
  }
  return undefined;
}

async function findOnHub(
  access: ModelAccess,
  repo: string,
  signal: AbortSignal | undefined,
): Promise<Place | undefined> {
  try {
    const found = await resolveHubModel(access.hub, { repo, revision: 'main', signal });
    const files = hubModelFiles(access.hub, found, '');
    if (!isAdapter(files)) return undefined;
    return { model: `hf://${repo}`, identity: hubIdentity(repo), files, directory: undefined };
  } catch (error) {
    if (error instanceof WeldlineError && UNKNOWN_TO_US.has(error.code)) return undefined;
    throw error;
  }
}

/** Merged models often keep the configuration of the adapter that went into them. */
function isAdapter({ sizes }: ModelFiles): boolean {
  return sizes.has(ADAPTER_CONFIG_FILE) && !sizes.has('config.json');
}

/** What PEFT and MLX write. Whether it is right is told where adapters are read for good. */
async function readConfig(files: ModelFiles): Promise<Readonly<Record<string, unknown>>> {
  if (!files.sizes.has(ADAPTER_CONFIG_FILE)) return {};
  try {
    const config = parseJson(await readTextFile(files, ADAPTER_CONFIG_FILE));
    return typeof config === 'object' && config !== null ? { ...config } : {};
  } catch {
    return {};
  }
}

async function readTrainedOn(files: ModelFiles): Promise<TrainedOn | undefined> {
  const { base_model_name_or_path: peft, model: mlx, revision } = await readConfig(files);
  const name = typeof peft === 'string' ? peft : mlx;
  if (typeof name !== 'string' || name === '') return undefined;
  return { name, revision: typeof revision === 'string' ? revision : undefined };
}

async function isDoraAdapter(files: ModelFiles): Promise<boolean> {
  const { use_dora: peft, fine_tune_type: mlx } = await readConfig(files);
  return peft === true || mlx === 'dora';
}
