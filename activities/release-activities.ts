import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileDurably } from '../engine/durable-files.ts';
import { reportPage } from '../report/html/report-page.ts';
import { modelCard } from '../report/model-card.ts';
import type { Dependencies } from './dependencies.ts';
import { factsOfRelease } from './facts-of-release.ts';
import { withHeartbeat } from './heartbeat.ts';
import type { ReportInput } from './quality-types.ts';
import { writeLedger } from './release-ledger.ts';
import { releaseReport } from './release-report.ts';
import type { Report } from './types.ts';
import { reportDirectory } from './workspace.ts';

/** report: what a release tells people about itself. */
export function createReleaseActivities({ home, access }: Dependencies) {
  return {
    /**
     * Writes the facts of the release, its card and a page about it into the workspace; once all of
     * it is published also that it is the last one of its recipe.
     */
    async report(input: ReportInput): Promise<Report> {
      return withHeartbeat('report', async () => {
        const facts = await factsOfRelease(home, input);
        const directory = reportDirectory(home, input.run.workflowId);
        await mkdir(directory, { recursive: true });
        const json = join(directory, 'report.json');
        const markdown = join(directory, 'report.md');
        const { publications } = input;
        const targets = input.recipe.publish;
        const text = JSON.stringify({ ...facts, publications, targets }, null, 2);
        await writeFileDurably(json, `${text}\n`);
        const shown = await releaseReport(home, input, facts);
        await writeFileDurably(markdown, modelCard(facts, shown));
        const html = join(directory, 'report.html');
        await writeFileDurably(html, reportPage(shown));
        await writeLedger(home, access, input);
        return { json, markdown, html };
      });
    },
  };
}
