/** A Python with torch, transformers, PEFT and llm-compressor in versions that weldline knows. */
export interface PythonTools {
  readonly origin: 'setting' | 'installed';
  /** The interpreter. */
  readonly python: string;
  /** What decides results: package → version, for `torch`, `transformers`, `peft`, `llmcompressor`, … */
  readonly versions: Readonly<Record<string, string>>;
}
