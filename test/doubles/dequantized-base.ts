import { castElements } from '../../kernels/index.ts';
import { dequantizeSlowly, type QuantizedSpec } from './quantized-weight.ts';
import type { TinyModel } from './tiny-model.ts';
import type { TestTensor } from './write-safetensors.ts';

const COMPANION = /\.(absmax|\w*quant_map|nested_absmax|quant_state\..*|SCB|weight_format)$/;

/**
 * A quantised base as it would be had it never been quantised. What was NF4 has the dtype of its
 * state; LLM.int8 dequantises to float32, which is rounded only once something was added.
 */
export function dequantizeBase(base: TinyModel): TinyModel {
  const { quantization_config: _, ...config } = base.config;
  const tensors = base.tensors
    .filter(({ name }) => !COMPANION.test(name))
    .map((tensor) => dequantize(tensor, base.tensors));
  return { ...base, config, tensors };
}

function dequantize(weight: TestTensor, all: readonly TestTensor[]): TestTensor {
  const { name, data, shape } = weight;
  if (weight.dtype === 'I8') {
    const scales = all.find((each) => each.name === name.replace(/weight$/, 'SCB'))!.data;
    const columns = shape[1] ?? 1;
    const { fround } = Math;
    const floats = Float32Array.from(new Int8Array(data), (integer, index) => {
      const row = Math.floor(index / columns);
      const scale = new DataView(scales.buffer, scales.byteOffset).getFloat32(4 * row, true);
      return fround(fround(integer * scale) * fround(1 / 127));
    });
    return { name, shape, dtype: 'F32', data: new Uint8Array(floats.buffer) };
  }
  const companions = all.filter((each) => each.name.startsWith(`${name}.`));
  const state = companions.find((each) => each.name.includes('.quant_state.'));
  if (state === undefined) return weight;
  const said = JSON.parse(new TextDecoder().decode(state.data));
  const spec: QuantizedSpec = {
    scheme: said.quant_type,
    blockSize: said.blocksize,
    dtype: said.dtype,
    shape: said.shape,
    nestedBlockSize: said.nested_blocksize,
  };
  const floats = Float32Array.from(dequantizeSlowly([weight, ...companions], spec));
  const { bytes } = castElements(new Uint8Array(floats.buffer), 'f32', 'bf16');
  return { name, shape: spec.shape, dtype: 'BF16', data: bytes };
}
