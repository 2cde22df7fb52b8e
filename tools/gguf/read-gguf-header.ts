import { gguf } from '@huggingface/gguf';

export interface GgufHeader {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: readonly {
    readonly name: string;
    /** Columns first. */
    readonly shape: readonly number[];
    /** Number in `ggml_type`. */
    readonly type: number;
    /** Bytes from the start of the file. */
    readonly offset: number;
  }[];
  readonly littleEndian: boolean;
  /** Of the list of tensors: first byte, and one after the last. */
  readonly listRange: readonly [number, number];
}

/**
 * Reads the header of a GGUF file.
 * @throws whatever the parser throws at a file that has none
 */
export async function readGgufHeader(file: string): Promise<GgufHeader> {
  const parsed = await gguf(file, { allowLocalFile: true });
  const start = Number(parsed.tensorDataOffset);
  return {
    metadata: { ...parsed.metadata },
    tensors: parsed.tensorInfos.map(({ name, shape, dtype, offset }) => ({
      name,
      shape: shape.map(Number),
      type: dtype,
      offset: start + Number(offset),
    })),
    littleEndian: parsed.littleEndian,
    listRange: parsed.tensorInfoByteRange,
  };
}
