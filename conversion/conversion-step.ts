import type { GgufTypeName } from '../config/gguf-types.ts';
import type { IntegerConversion } from '../config/release-quality.ts';

/**
 * One conversion: the unit that is made, kept, evaluated, judged by the gate and published on its
 * own. Plain data, since it goes through workflows.
 */
export type ConversionStep = GgufStep | IntegerStep | GgufAdapterStep;

/** One GGUF file (or its parts) of the merged checkpoint. */
export interface GgufStep {
  readonly kind: 'gguf';
  /** `gguf-q4_k_m`: names directories, candidates and artefacts. */
  readonly id: string;
  readonly type: GgufTypeName;
  /** The step whose file is quantized; absent where the checkpoint itself is converted. */
  readonly after?: string;
  /** As in the recipe. */
  readonly imatrix?: { readonly file: string } | { readonly calibration: string };
  readonly splitBytes?: number;
  /** False for a file that only others are made of: it is evaluated (as their reference), not published. */
  readonly wanted: boolean;
}

/** Integer weights in the compressed-tensors format. */
export interface IntegerStep {
  readonly kind: 'awq' | 'gptq';
  /** `awq-w4a16-g128`. */
  readonly id: string;
  readonly settings: IntegerConversion;
}

/** A LoRA adapter as GGUF, for `--lora` of llama.cpp. */
export interface GgufAdapterStep {
  readonly kind: 'gguf-adapter';
  /** `gguf-adapter-<adapter id>`. */
  readonly id: string;
  readonly adapter: string;
}

/** What a finished conversion is: its manifest, `conversion.json`, which is written last. */
export interface ConversionManifest {
  readonly format: 'weldline.conversion';
  readonly id: string;
  readonly kind: ConversionStep['kind'];
  /** SHA-256 over all that decides the files: source, settings, tools. */
  readonly key: string;
  /** Program or package → version. */
  readonly tools: Readonly<Record<string, string>>;
  /** Settings as they were used, for people. */
  readonly settings: Readonly<Record<string, string | number | boolean | readonly string[]>>;
  /** Average bits of a weight, file size over parameters; absent for an adapter. */
  readonly bitsPerWeight?: number;
  /** What was read back and found right, one sentence each. */
  readonly checks: readonly string[];
  readonly warnings: readonly string[];
  /**
   * Relative error of dequantized weights, ‖Q(W) − W‖ / ‖W‖ for each quantised module, where it was
   * measured; keyed by the module's name.
   */
  readonly layerErrors?: Readonly<Record<string, number>>;
  readonly files: readonly {
    readonly path: string;
    readonly size: number;
    readonly sha256: string;
  }[];
}
