import type { ModelFiles } from '../engine/model-files.ts';
import { noSuchFile } from './model-directory.ts';
import type { RemoteModel, RemoteSource } from './remote-source.ts';

/** The files of a remote model, read where they are. */
export function remoteModelFiles(source: RemoteSource, model: RemoteModel): ModelFiles {
  const files = new Map(model.files.map((file) => [file.path, file]));
  return {
    name: model.uri,
    sizes: new Map(model.files.map(({ path, size }) => [path, size])),
    async open(path) {
      const file = files.get(path);
      if (file === undefined) throw noSuchFile(model.uri, path);
      return source.open(model, file);
    },
  };
}
