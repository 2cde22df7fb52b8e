import type { LlamaCpp } from '../tools/llama-cpp.ts';
import type { PythonTools } from '../tools/python-tools.ts';
import type { ConversionManifest, ConversionStep } from './conversion-step.ts';

/** The programs of a conversion, those that there are, and the environment they run in. */
export interface ConversionTools {
  readonly llamaCpp?: LlamaCpp;
  readonly python?: PythonTools;
  /** See `childVariables`. */
  readonly variables: Readonly<Record<string, string>>;
  /** How long each may print nothing, where the user says so; undefined leaves it to the program. */
  readonly stallTimeoutMs?: number | undefined;
}

/** What is known of the merged model before the merge. */
export interface ModelFacts {
  /** Parsed `config.json`, as the merged model will have it. */
  readonly config: Readonly<Record<string, unknown>>;
  /** With the base's tokenizer and side files; the weights may be absent. */
  readonly directory: string;
  /** Name → shape of every tensor of the merged model. */
  readonly tensors: ReadonlyMap<string, readonly number[]>;
}

export interface ConversionProgress {
  /** What is being done, for people: `converting`, `quantizing`, `checking`, … */
  readonly stage: string;
  /** 0 to 1, where it is known. */
  readonly fraction?: number;
}

export interface ConvertOptions<Step extends ConversionStep = ConversionStep> {
  readonly step: Step;
  /** Directory of the sealed checkpoint. */
  readonly merged: string;
  /** What decides the checkpoint's bytes: the digest of its plan or of its manifest. */
  readonly mergedDigest: string;
  /** Directories of the adapters, by id. */
  readonly adapters: Readonly<Record<string, string>>;
  /** Directory of the base; its weights may be absent. */
  readonly base: string;
  /** Directories of finished conversions, by the id of their step. */
  readonly sources: Readonly<Record<string, string>>;
  /** Where conversions are kept. */
  readonly directory: string;
  /** What the model calls itself, in metadata. */
  readonly modelName: string;
  readonly tools: ConversionTools;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: ConversionProgress) => void) | undefined;
  /** Where all output of the programs goes. */
  readonly logFile?: string | undefined;
}

export interface Conversion {
  /** Holds the files of the manifest and `conversion.json`. */
  readonly directory: string;
  readonly manifest: ConversionManifest;
  /** SHA-256 of `conversion.json`. */
  readonly manifestDigest: string;
}
