/** Names that provenance is written and read with; docs/provenance.md explains them. */

export const PROVENANCE_FILE = 'provenance.intoto.json';
export const PROVENANCE_TYPE = 'https://slsa.dev/provenance/v1';

/** Stands for the rules of docs/provenance.md; another meaning of a field would be another URI. */
export const BUILD_TYPE = 'urn:weldline:build:release:v1';
export const BUILDER_ID = 'urn:weldline:builder:worker';

export const TOOL_PREFIX = 'tool:';
/** The merged checkpoint that a conversion was made of. */
export const MERGED_NAME = 'merged-checkpoint';

const ADAPTER_PREFIX = 'adapter:';

/** What a model is called among the dependencies; its files are below that. */
export function modelName(role: 'base' | 'adapter', id: string): string {
  return role === 'base' ? 'base' : `${ADAPTER_PREFIX}${id}`;
}

/** The id of a model by its name: `base`, or an adapter's. */
export function modelId(name: string): string {
  return name.startsWith(ADAPTER_PREFIX) ? name.slice(ADAPTER_PREFIX.length) : name;
}
