/** A small generator of pseudo-random numbers: the same seed, the same numbers, everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** The next whole number in [0, 2^32). The mixing steps are those of Marsaglia's xorshift32. */
  next(): number {
    // A zero state would stay zero.
    let x = this.#state === 0 ? 0x9e3779b9 : this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return this.next() % limit;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  /** Finite floating-point values of a safetensors dtype, of magnitude 2^-9 to 2^-3. */
  floats(dtype: 'BF16' | 'F16' | 'F32', count: number): Uint8Array<ArrayBuffer> {
    const size = dtype === 'F32' ? 4 : 2;
    const bytes = new Uint8Array(count * size);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      const bits = this.next();
      const exponent = bits % 6;
      if (dtype === 'F16') view.setUint16(2 * i, ((6 + exponent) << 10) | (bits & 0x83ff), true);
      else {
        const f32 = (((118 + exponent) << 23) | (bits & 0x807fffff)) >>> 0;
        if (dtype === 'F32') view.setUint32(4 * i, f32, true);
        else view.setUint16(2 * i, f32 >>> 16, true);
      }
    }
    return bytes;
  }
}
