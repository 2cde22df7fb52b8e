/** A Python with torch, transformers, PEFT and llm-compressor in versions that weldline knows. */
export interface PythonTools {
  readonly origin: 'setting' | 'installed';
  /** The interpreter. */
  readonly python: string;
  /** What decides results: package → version, for `torch`, `transformers`, `peft`, `llmcompressor`, … */
  readonly versions: Readonly<Record<string, string>>;
  /** Whether torch computes on a GPU, where models are evaluated in bfloat16. */
  readonly gpu?: true;
}
