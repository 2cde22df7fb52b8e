import type { ModelFiles } from '../engine/model-files.ts';
import type { HubConnection } from './hub-connection.ts';
import type { HubModel } from './hub-model.ts';
import { openHubSource } from './hub-source.ts';
import { noSuchFile } from './model-directory.ts';
import { formatHubReference } from './reference.ts';

/**
 * The files of a hub model at its commit, read over the network: for looking into headers and
 * configuration before anything is downloaded.
 * @param folder the folder of the repository the model is in; empty for the root
 */
export function hubModelFiles(
  connection: HubConnection,
  model: HubModel,
  folder: string,
): ModelFiles {
  const prefix = folder === '' ? '' : `${folder}/`;
  const name = formatHubReference({ repo: model.repo, revision: model.commit, folder });
  const files = new Map(
    model.files
      .filter((file) => file.path.startsWith(prefix))
      .map((file) => [file.path.slice(prefix.length), file]),
  );
  return {
    name,
    sizes: new Map([...files].map(([path, file]) => [path, file.size])),
    async open(path) {
      const file = files.get(path);
      if (file === undefined) throw noSuchFile(name, path);
      return openHubSource(connection, model, file);
    },
  };
}
