import type { TinyModel } from './tiny-model.ts';
import { frame, headerMembers, type TestTensor, writeSafetensors } from './write-safetensors.ts';

/** The names that the same tensor has in another format. */
type Renaming = (module: string, half: 'A' | 'B') => string;

function rename(adapter: TinyModel, name: Renaming): TestTensor[] {
  return adapter.tensors.map((tensor) => {
    const found = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/.exec(tensor.name);
    if (found === null) throw new Error(`${tensor.name} is no factor`);
    return { ...tensor, name: name(found[1] as string, found[2] as 'A' | 'B') };
  });
}

export interface KohyaOptions {
  readonly prefix?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Alpha of a module; without one it has none. */
  readonly alpha?: (module: string) => number | undefined;
  /** What else is in the file, or is changed. */
  readonly change?: (tensors: TestTensor[]) => TestTensor[];
}

/** Makes an adapter's files those of kohya's trainers: one file, and no configuration. */
export function makeKohya(adapter: TinyModel, options: KohyaOptions = {}): void {
  const { prefix = 'lora_', alpha = () => 8, change = (tensors) => tensors } = options;
  const stem = (module: string): string => prefix + module.replaceAll('.', '_');
  const factors = rename(adapter, (module, half) =>
    half === 'A' ? `${stem(module)}.lora_down.weight` : `${stem(module)}.lora_up.weight`,
  );
  const alphas = factors
    .filter(({ name }) => name.endsWith('.lora_down.weight'))
    .flatMap(({ name }): TestTensor[] => {
      const module = name.replace('.lora_down.weight', '');
      const value = alpha(module);
      return value === undefined ? [] : [alphaTensor(`${module}.alpha`, value)];
    });
  adapter.files['adapter_config.json'] = null;
  adapter.files['adapter_model.safetensors'] = null;
  const tensors = change([...factors, ...alphas]);
  const metadata = `"__metadata__":${JSON.stringify(options.metadata ?? {})}`;
  adapter.files['style.safetensors'] = frame(
    `{${[metadata, ...headerMembers(tensors)].join(',')}}`,
    ...tensors.map(({ data }) => data),
  );
}

export function alphaTensor(name: string, value: number): TestTensor {
  return { name, dtype: 'F32', shape: [], data: new Uint8Array(Float32Array.of(value).buffer) };
}

/** Makes an adapter's files those of mlx-lm: factors transposed, the scale in the configuration. */
export function makeMlx(
  adapter: TinyModel,
  config: Readonly<Record<string, unknown>>,
  change: (tensors: TestTensor[]) => TestTensor[] = (tensors) => tensors,
): void {
  const factors = rename(adapter, (module, half) => `${module}.lora_${half.toLowerCase()}`);
  adapter.files['adapter_model.safetensors'] = null;
  adapter.files['adapters.safetensors'] = writeSafetensors(change(factors.map(transpose)));
  adapter.config = { ...config };
}

function transpose(tensor: TestTensor): TestTensor {
  const [rows = 0, columns = 0] = tensor.shape;
  const size = tensor.data.length / (rows * columns);
  const data = new Uint8Array(tensor.data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = (row * columns + column) * size;
      data.set(tensor.data.subarray(from, from + size), (column * rows + row) * size);
    }
  }
  return { ...tensor, shape: [columns, rows], data };
}
