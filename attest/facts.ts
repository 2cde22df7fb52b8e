import type { SignedFile } from './signed-files.ts';

/**
 * All that an artefact's documents say of it, as plain data. The same facts give the same bytes: no
 * clock, no path of this machine.
 */
export interface AttestationFacts {
  readonly artefact: {
    /** With the conversion's id at its end, as the port of publishers names it. */
    readonly name: string;
    readonly version: string;
    /** Id of a conversion (`gguf-q4_k_m`); absent for the merged checkpoint. */
    readonly part?: string;
    /** SHA-256 of `weldline.json` or `conversion.json`; hex. */
    readonly manifestDigest: string;
  };
  /** All files of the artefact that exist before the document, the manifest among them. */
  readonly files: readonly AttestedFile[];
  readonly base: AttestedModel;
  readonly adapters: readonly AttestedModel[];
  readonly recipe: {
    readonly name: string;
    /** SHA-256 of the recipe, however it is laid out; hex. */
    readonly digest: string;
    /** With the references as its author typed them. Recipes hold no secrets. */
    readonly document: unknown;
  };
  readonly engine: { readonly version: string; readonly format: number };
  /** SHA-256 of the merge plan; hex. */
  readonly plan: string;
  /** Of the merge, as its manifest has them. */
  readonly options: Readonly<Record<string, string | number>>;
  /** For a conversion: what it was made of, and how. */
  readonly conversion?: AttestedConversion;
  /** Programs and packages beside weldline that made it → version. */
  readonly tools: Readonly<Record<string, string>>;
  /** In the order of the recipe's suites; empty without an evaluation. */
  readonly metrics: readonly AttestedMetric[];
  readonly gate?: 'passed' | 'refused' | 'overridden';
  readonly license?: AttestedLicense;
  /** First of `architectures` in config.json (`LlamaForCausalLM`), and its `model_type`. */
  readonly architecture?: { readonly name: string; readonly family?: string };
  /** As the hub calls it: `text-generation`. */
  readonly task?: string;
  readonly run: {
    readonly workflowId: string;
    readonly runId: string;
    /** ISO 8601, UTC: of the workflow's start and of when the artefact was ready. */
    readonly startedAt: string;
    readonly finishedAt: string;
  };
}

export interface AttestedFile extends SignedFile {
  /** Bytes. */
  readonly size: number;
}

export interface AttestedModel {
  /** `base`, or the adapter's id. */
  readonly id: string;
  /** As the manifest names it: `hf://org/name`, or the last component of a directory. */
  readonly model: string;
  readonly place: ModelPlace;
  /** Those that were read. */
  readonly files: readonly AttestedFile[];
  readonly trainingRun?: string;
}

/** Where a model came from, pinned. */
export type ModelPlace =
  | {
      readonly kind: 'hub';
      readonly repo: string;
      readonly commit: string;
      /** Within the repository; empty for its root. */
      readonly folder: string;
      /** Of the hub; huggingface.co if absent. */
      readonly endpoint?: string;
    }
  /** `uri` without credentials; `pin` of an OCI model is the digest of its manifest. */
  | { readonly kind: 's3' | 'oci' | 'http'; readonly uri: string; readonly pin: string }
  | { readonly kind: 'directory' };

export interface AttestedConversion {
  readonly id: string;
  readonly settings: Readonly<Record<string, unknown>>;
  /** The artefact of the merged checkpoint, and the digest of its manifest. */
  readonly madeOf: { readonly artefact: string; readonly manifestDigest: string };
}

export interface AttestedMetric {
  readonly suite: string;
  /** `accuracy`, `perplexity`, `kl_divergence`. */
  readonly metric: string;
  readonly value: number;
  /** Of a 95 % interval. */
  readonly low?: number;
  readonly high?: number;
}

export interface AttestedLicense {
  /** As the hub calls it (`apache-2.0`, `llama3.1`, `other`), or an SPDX id. */
  readonly id: string;
  /** What it is called where the id is `other`. */
  readonly name?: string;
  readonly link?: string;
}
