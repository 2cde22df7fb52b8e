/** Safetensors files for tests, sound ones and malformed ones; shares no code with the engine. */

export interface TestTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** A sound file: tensors one after the other in the given order. */
export function writeSafetensors(tensors: readonly TestTensor[]): Uint8Array<ArrayBuffer> {
  return frame(`{${headerMembers(tensors).join(',')}}`, ...tensors.map(({ data }) => data));
}

/** The members of a sound header, as JSON text, to change before they are framed. */
export function headerMembers(tensors: readonly TestTensor[]): string[] {
  let end = 0;
  return tensors.map(({ name, dtype, shape, data }) => {
    const begin = end;
    end += data.length;
    const entry = { dtype, shape, data_offsets: [begin, end] };
    return `${JSON.stringify(name)}:${JSON.stringify(entry)}`;
  });
}

/** Any header, well-formed or not, with its length before it and data behind it. */
export function frame(
  header: string | Uint8Array,
  ...data: readonly Uint8Array[]
): Uint8Array<ArrayBuffer> {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
  return concatenate(length, json, ...data);
}

export function concatenate(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
