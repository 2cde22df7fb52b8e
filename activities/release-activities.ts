import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { digestFile, writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import { DirectoryPublisher } from '../publishers/directory/directory-publisher.ts';
import { type ArtefactFile, type Published, RELEASE_FILE } from '../publishers/publisher.ts';
import { reportPage } from '../report/html/report-page.ts';
import { modelCard } from '../report/model-card.ts';
import { type ReleaseFacts, releaseFacts } from '../report/release-facts.ts';
import type { Dependencies } from './dependencies.ts';
import { withHeartbeat } from './heartbeat.ts';
import { readInsight } from './plan-insight.ts';
import { releaseProvenance } from './provenance.ts';
import { type PublishedPart, publishedPart } from './published-part.ts';
import type { PublishInput, ReleaseParts, ReportInput } from './quality-types.ts';
import { releaseReport } from './release-report.ts';
import { readStored } from './stored-json.ts';
import type { Publication, Report } from './types.ts';
import { evaluationDirectory, mergeWorkspace, reportDirectory } from './workspace.ts';

/** publish and report: what happens to a verified checkpoint. */
export function createReleaseActivities({ home, access }: Dependencies) {
  return {
    /** Publishes to one target of the recipe. Idempotent; what differs is a conflict. */
    async publish(input: PublishInput): Promise<Publication> {
      return withHeartbeat('publish', async (report, signal) => {
        const target = input.recipe.publish[input.target];
        if (target === undefined) throw new RangeError(`the recipe has no target ${input.target}`);
        const facts = await factsOf(home, input);
        const readReport = () => releaseReport(home, input, facts);
        const part = await publishedPart(input, facts, readReport, input.part);
        const directory = 'directory' in target ? target.directory.path : '';
        const onFile = (item: string) => report({ item, bytesDone: 0, bytesTotal: 0 });
        const { existed, location } = await publishPart(part, facts, directory, signal, onFile);
        const publication = { location, existed };
        // Also where it was there already: a version stands for bytes, not for a name.
        const changed = await access.digests.findChanged(location, part.files, signal);
        await access.digests.save();
        if (changed === undefined) {
          return { ...publication, ...(input.part && { part: input.part }) };
        }
        throw new WeldlineError(
          'verify.digest-mismatch',
          `${join(location, changed)} is not the file that was published. Remove ${location} and ` +
            'release again.',
        );
      });
    },

    /** Writes the facts of the release, its card and a page about it into the workspace. */
    async report(input: ReportInput): Promise<Report> {
      return withHeartbeat('report', async () => {
        const facts = await factsOf(home, input);
        const directory = reportDirectory(home, input.run.workflowId);
        await mkdir(directory, { recursive: true });
        const json = join(directory, 'report.json');
        const markdown = join(directory, 'report.md');
        const { publications } = input;
        await writeFileDurably(json, toJson({ ...facts, publications }));
        const shown = await releaseReport(home, input, facts);
        await writeFileDurably(markdown, modelCard(facts, shown));
        const html = join(directory, 'report.html');
        await writeFileDurably(html, reportPage(shown));
        return { json, markdown, html };
      });
    },
  };
}

/** The texts of a part are files while it is published. */
async function publishPart(
  part: PublishedPart,
  facts: ReleaseFacts,
  directory: string,
  signal: AbortSignal,
  onFile: (path: string) => void,
): Promise<Published> {
  const texts = await mkdtemp(join(tmpdir(), 'weldline-texts-'));
  try {
    const described = part.files.map((file) => ({ ...file, source: join(part.source, file.path) }));
    const manifest = join(part.source, part.manifestFile);
    described.push({ path: part.manifestFile, source: manifest, ...(await digestFile(manifest)) });
    const { [RELEASE_FILE]: release = '', ...others } = part.texts;
    for (const [path, text] of [...Object.entries(others), [RELEASE_FILE, release] as const]) {
      const source = join(texts, path);
      await writeFile(source, text);
      const sha256 = createHash('sha256').update(text).digest('hex');
      described.push({ path, size: Buffer.byteLength(text), sha256, source });
    }
    const files: readonly ArtefactFile[] = described;
    const { manifestDigest, artefact: name } = part;
    const { run, version, plan: planDigest } = facts;
    const description = {
      ...{ name: facts.name, version, kind: 'merged' as const, base: '', adapters: [], run },
      ...{ createdAt: run.startedAt, metrics: {}, labels: {} },
    };
    const artefact = { release: name, manifestDigest, planDigest, files, description };
    const onProgress = ({ item }: { item: string }) => onFile(item);
    const publisher = new DirectoryPublisher(directory);
    return await publisher.publish(artefact, { signal, onProgress, publishedAt: [] });
  } finally {
    await rm(texts, { recursive: true, force: true });
  }
}

async function factsOf(home: string, input: ReleaseParts): Promise<ReleaseFacts> {
  const { recipe, inputs, sealed, verification, run, quality } = input;
  const manifest = await readManifest(sealed.directory);
  const { decision, approval } = quality ?? {};
  const decisions = join(evaluationDirectory(home), 'decisions');
  const gate =
    decision === undefined ? undefined : await readStored<GateDecision>(decisions, decision);
  return releaseFacts({
    name: recipe.name,
    version: recipe.version,
    provenance: releaseProvenance(input),
    artefact: inputs.artefact,
    manifest,
    manifestDigest: sealed.manifestDigest,
    verification,
    insight: await readInsight(mergeWorkspace(home, input.planDigest)),
    run,
    gate,
    approval,
  });
}

function toJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
