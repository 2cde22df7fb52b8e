import { WeldlineError } from '../engine/errors.ts';
import { readTextFile } from '../engine/model-files.ts';
import { remoteModelFiles } from '../sources/remote-model-files.ts';
import type { RemoteModel, RemoteSource } from '../sources/remote-source.ts';

/**
 * Finds what is at a URI. A bucket has no links: `s3://bucket/prefix/latest` is no place, and where it
 * leads to stands in `aliases/latest.json` beside the artefacts (of a conversion, in
 * `aliases/latest.<conversion>.json`, and its name is `latest.<conversion>`).
 * @throws WeldlineError `source.*`
 */
export async function resolveOrFollow(
  source: RemoteSource,
  uri: string,
  signal: AbortSignal,
): Promise<RemoteModel> {
  try {
    return await source.resolve(uri, signal);
  } catch (error) {
    const isMissing = error instanceof WeldlineError && error.code === 'source.not-found';
    const target = isMissing ? await targetOf(source, uri, signal) : undefined;
    if (target === undefined) throw error;
    return source.resolve(target, signal);
  }
}

async function targetOf(
  source: RemoteSource,
  uri: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const [, parent, name = ''] = /^(s3:\/\/[^/]+(?:\/.+)?)\/([^/]+)\/?$/.exec(uri) ?? [];
  if (parent === undefined) return undefined;
  const folder = await source.resolve(`${parent}/aliases`, signal).catch(() => undefined);
  const path = `${name}.json`;
  if (folder?.files.some((file) => file.path === path) !== true) return undefined;
  const text = await readTextFile(remoteModelFiles(source, folder), path);
  const release = releaseIn(text);
  if (release === undefined) return undefined;
  const [, ...part] = name.split('.');
  return [`${parent}/${release}`, ...(part.length === 0 ? [] : [part.join('.')])].join('-');
}

function releaseIn(text: string): string | undefined {
  try {
    const { release } = JSON.parse(text) as { release?: unknown };
    return typeof release === 'string' && /^[\w][\w.-]*$/.test(release) ? release : undefined;
  } catch {
    return undefined;
  }
}
