/** Values and order of stored floats, worked out apart from the engine and the kernels. */

const SIZE_BY_DTYPE = { BF16: 2, F16: 2, F32: 4 } as const;

export type FloatDtypeName = keyof typeof SIZE_BY_DTYPE;

/** The values of a tensor's bytes, exactly. */
export function decodeTensor(bytes: Uint8Array, dtype: FloatDtypeName): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = SIZE_BY_DTYPE[dtype];
  const values = new Float64Array(bytes.length / size);
  for (let index = 0; index < values.length; index++) {
    if (dtype === 'F32') {
      values[index] = view.getFloat32(index * size, true);
    } else {
      const bits = view.getUint16(index * size, true);
      values[index] = dtype === 'F16' ? halfToNumber(bits) : bfloatToNumber(bits);
    }
  }
  return values;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const scratch = new DataView(new ArrayBuffer(4));

function bfloatToNumber(bits: number): number {
  scratch.setUint32(0, bits * 0x10000);
  return scratch.getFloat32(0);
}

/** For each value its place in the order of all values of the dtype: neighbours differ by one. */
export function ordinalsOf(bytes: Uint8Array, dtype: FloatDtypeName): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = SIZE_BY_DTYPE[dtype];
  return Float64Array.from({ length: bytes.length / size }, (_, index) => {
    const bits = size === 4 ? view.getUint32(index * 4, true) : view.getUint16(index * 2, true);
    const signBit = 2 ** (8 * size - 1);
    return bits >= signBit ? signBit - bits : bits;
  });
}

const MANTISSA_BITS = { BF16: 7, F16: 10, F32: 23 } as const;
/** Exponent of the smallest normal value. */
const EXPONENT_MIN = { BF16: -126, F16: -14, F32: -126 } as const;

/** Half the distance from a stored value to the next one away from zero. */
export function halfGapAt(value: number, dtype: FloatDtypeName): number {
  let exponent = EXPONENT_MIN[dtype] as number;
  while (Math.abs(value) >= 2 ** (exponent + 1)) exponent++;
  return 2 ** (exponent - MANTISSA_BITS[dtype] - 1);
}
