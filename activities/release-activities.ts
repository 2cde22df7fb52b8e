import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileDurably } from '../engine/durable-files.ts';
import { WeldlineError } from '../engine/errors.ts';
import { readManifest } from '../engine/verify/verify-merge.ts';
import type { GateDecision } from '../evaluation/gate-decision.ts';
import { publishToDirectory } from '../publishers/directory.ts';
import { reportPage } from '../report/html/report-page.ts';
import { modelCard } from '../report/model-card.ts';
import { type ReleaseFacts, releaseFacts } from '../report/release-facts.ts';
import type { Dependencies } from './dependencies.ts';
import { withHeartbeat } from './heartbeat.ts';
import { readInsight } from './plan-insight.ts';
import { releaseProvenance } from './provenance.ts';
import { publishedPart } from './published-part.ts';
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
        const publication = await publishToDirectory({
          ...part,
          files: part.files.map((file) => file.path),
          target: 'directory' in target ? target.directory.path : '',
          signal,
          onFile: (item) => report({ item, bytesDone: 0, bytesTotal: 0 }),
        });
        // Also where it was there already: a version stands for bytes, not for a name.
        const { location } = publication;
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
