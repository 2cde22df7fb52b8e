import { createHash } from 'node:crypto';
import { z } from 'zod';
import { WeldlineError } from '../engine/errors.ts';
import { problemsOf } from '../engine/schema-problems.ts';
import type { AttestationFacts, AttestedLicense, AttestedMetric, AttestedModel } from './facts.ts';
import { modelUri, packageUrl, toolUrl } from './package-url.ts';
import { inSigningOrder, type SignedFile } from './signed-files.ts';
import { spdxId } from './spdx.ts';

export const BOM_FILE = 'bom.cdx.json';

const MODEL_REF = 'model';

/**
 * What an artefact consists of and what it was made of: a CycloneDX 1.6 bill of materials of a
 * machine-learning model (https://cyclonedx.org/docs/1.6/json).
 * @returns the text of `bom.cdx.json`
 */
export function billOfMaterials(facts: AttestationFacts): string {
  const { artefact, run, tools, engine } = facts;
  const files = inSigningOrder(facts.files);
  const bom = {
    $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: `urn:uuid:${uuidOf(`${artefact.name}\n${artefact.manifestDigest}`)}`,
    version: 1,
    metadata: {
      timestamp: run.finishedAt,
      tools: {
        components: Object.entries({ weldline: engine.version, ...tools }).map(
          ([name, version]) => ({
            ...{ type: 'application', 'bom-ref': `tool:${name}`, name, version },
            purl: toolUrl(name, version),
          }),
        ),
      },
      component: modelComponent(facts),
    },
    components: files.map(({ path, sha256 }) => ({
      ...{ type: 'file', 'bom-ref': fileRef(path), name: path },
      hashes: hashes(sha256),
    })),
    dependencies: [
      { ref: MODEL_REF, dependsOn: files.map(({ path }) => fileRef(path)) },
      ...files.map(({ path }) => ({ ref: fileRef(path) })),
    ],
  };
  return `${JSON.stringify(bom, null, 2)}\n`;
}

const fileRef = (path: string): string => `file:${path}`;
const hashes = (sha256: string) => [{ alg: 'SHA-256', content: sha256 }];

function modelComponent(facts: AttestationFacts): object {
  const { artefact, base, adapters, license, plan, conversion, run, gate } = facts;
  const { name, version, manifestDigest } = artefact;
  const kind = conversion === undefined ? 'merged' : conversion.id;
  const properties = {
    ...{ 'weldline:artefact': kind, 'weldline:plan': plan },
    'weldline:run': `${run.workflowId}/${run.runId}`,
    ...(conversion && { 'weldline:made-of': conversion.madeOf.manifestDigest }),
    ...(gate && { 'weldline:gate': gate }),
  };
  return {
    ...{ type: 'machine-learning-model', 'bom-ref': MODEL_REF, name, version },
    // Of the manifest, which has the digests of all other files.
    hashes: hashes(manifestDigest),
    ...(license && { licenses: [{ license: licenseOf(license) }] }),
    purl: packageUrl({
      ...{ type: 'generic', name, version },
      qualifiers: { checksum: `sha256:${manifestDigest}` },
    }),
    pedigree: { ancestors: [ancestor(base, 'base'), ...adapters.map((each) => ancestor(each))] },
    modelCard: modelCard(facts),
    properties: Object.entries(properties).map(([key, value]) => ({ name: key, value })),
  };
}

/** A model that it was made of. */
function ancestor(model: AttestedModel, role: 'base' | 'adapter' = 'adapter'): object {
  const { id, place, files, trainingRun } = model;
  const uri = modelUri(place);
  const ref = role === 'base' ? 'base' : `adapter:${id}`;
  const isPackage = uri?.startsWith('pkg:') === true;
  return {
    ...{ type: 'machine-learning-model', 'bom-ref': ref, name: model.model },
    ...(place.kind === 'hub' && { version: place.commit }),
    ...(isPackage && { purl: uri }),
    ...(uri !== undefined &&
      !isPackage && { externalReferences: [{ type: 'distribution', url: uri }] }),
    components: inSigningOrder(files).map(({ path, sha256 }) => ({
      ...{ type: 'file', 'bom-ref': `${ref}/${path}`, name: path },
      hashes: hashes(sha256),
    })),
    properties: [
      { name: 'weldline:role', value: role },
      ...(trainingRun === undefined ? [] : [{ name: 'weldline:training-run', value: trainingRun }]),
    ],
  };
}

function modelCard({ task, architecture, metrics }: AttestationFacts): object {
  return {
    modelParameters: {
      ...(task !== undefined && { task }),
      ...(architecture?.family !== undefined && { architectureFamily: architecture.family }),
      ...(architecture && { modelArchitecture: architecture.name }),
    },
    ...(metrics.length > 0 && {
      quantitativeAnalysis: { performanceMetrics: metrics.map(describeMetric) },
    }),
  };
}

function describeMetric({ suite, metric, value, low, high }: AttestedMetric): object {
  return {
    ...{ type: metric, value: String(value), slice: suite },
    ...(low !== undefined &&
      high !== undefined && {
        confidenceInterval: { lowerBound: String(low), upperBound: String(high) },
      }),
  };
}

function licenseOf({ id, name, link }: AttestedLicense): object {
  const spdx = spdxId(id);
  const isUrl = link !== undefined && /^https?:\/\//.test(link) && URL.canParse(link);
  return {
    ...(spdx === undefined ? { name: name ?? id } : { id: spdx }),
    ...(isUrl && { url: link }),
  };
}

/** A UUID of version 8, whose bits are free: the same artefact has the same. */
function uuidOf(text: string): string {
  const bytes = createHash('sha256').update(text).digest().subarray(0, 16);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = bytes.toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** What a bill of materials claims of the files of its artefact. */
export interface BillOfMaterials {
  readonly artefact: string;
  readonly version: string;
  readonly manifestDigest: string;
  readonly files: readonly SignedFile[];
}

const hashSchema = z
  .array(z.object({ alg: z.literal('SHA-256'), content: z.string().regex(/^[0-9a-f]{64}$/) }))
  .length(1);

const bomSchema = z.object({
  bomFormat: z.literal('CycloneDX'),
  specVersion: z.literal('1.6'),
  metadata: z.object({
    component: z.object({ name: z.string(), version: z.string(), hashes: hashSchema }),
  }),
  components: z.array(z.object({ type: z.literal('file'), name: z.string(), hashes: hashSchema })),
});

/**
 * Reads a bill of materials that weldline wrote.
 * @throws WeldlineError `attest.document-invalid`
 */
export function parseBillOfMaterials(text: string): BillOfMaterials {
  const parsed = bomSchema.safeParse(readJson(text));
  if (!parsed.success) throw invalid(problemsOf(parsed.error));
  const { metadata, components } = parsed.data;
  const sha256Of = ({ hashes: [hash] }: { hashes: z.infer<typeof hashSchema> }): string =>
    hash?.content ?? '';
  const { name, version } = metadata.component;
  return {
    ...{ artefact: name, version, manifestDigest: sha256Of(metadata.component) },
    files: components.map((file) => ({ path: file.name, sha256: sha256Of(file) })),
  };
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid('it is no JSON', error);
  }
}

function invalid(problem: string, cause?: unknown): WeldlineError {
  return new WeldlineError(
    'attest.document-invalid',
    `${BOM_FILE} is no bill of materials of a release: ${problem}. Fetch it again from where the ` +
      'release was published.',
    { cause },
  );
}
