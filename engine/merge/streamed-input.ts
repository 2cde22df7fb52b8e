import type { ModelFiles } from '../model-files.ts';

/** An input whose weights are read where they are and never stored; all else of it is on disk. */
export interface StreamedInput {
  /** Its files, read by range. */
  readonly files: ModelFiles;
  /**
   * What tells two states of it apart: a commit, a digest. Reading fails once the place holds
   * another state than this.
   */
  readonly pin: string;
}

/** By the id of the input. */
export type StreamedInputs = Readonly<Record<string, StreamedInput>>;

/** Weights are large, and nothing else is: whatever has not this ending is fetched to disk. */
export function isStreamedFile(path: string): boolean {
  return path.endsWith('.safetensors');
}

/** The input that a file is streamed from, if it is. */
export function streamedInput(
  streamed: StreamedInputs,
  input: string,
  file: string,
): StreamedInput | undefined {
  return isStreamedFile(file) ? streamed[input] : undefined;
}
