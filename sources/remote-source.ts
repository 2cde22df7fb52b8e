import type { ByteSource } from '../engine/byte-source.ts';

/** Of a file whose server says nothing that tells two states of it apart. */
export const NO_VERSION = 'none';

/** A file of a model that is elsewhere, as it was when the model was pinned. */
export interface RemoteFile {
  /** Relative to the model, with forward slashes; checked to be plain. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Hex, of the content, where the place knows it. */
  readonly sha256?: string;
  /**
   * What pins the content: an ETag, a version id, a digest. Reads fail once it is another.
   * {@link NO_VERSION} pins nothing.
   */
  readonly version: string;
}

/** A model at a place other than a directory or a hub, pinned. Plain data: a history holds it. */
export interface RemoteModel {
  readonly kind: 's3' | 'oci' | 'http';
  /** As the recipe names it, without credentials. */
  readonly uri: string;
  /**
   * What tells two states of it apart: a manifest's digest, or the digest of all paths and versions
   * (and of the URI, where versions do not depend on bytes alone); hex.
   */
  readonly pin: string;
  readonly files: readonly RemoteFile[];
}

/** How models are read from one kind of place. The generic parts (fetching, caching) are built on it. */
export interface RemoteSource {
  readonly kind: RemoteModel['kind'];
  /**
   * Lists the files under a URI and pins them.
   * @throws WeldlineError `source.not-found`, `source.unauthorized`, `source.unavailable`,
   *   `source.invalid-reference`
   */
  resolve(uri: string, signal?: AbortSignal): Promise<RemoteModel>;
  /**
   * One of its files, read by range.
   * @throws WeldlineError `source.changed` on reading, if it is no longer the file that was pinned
   */
  open(model: RemoteModel, file: RemoteFile): ByteSource;
}
