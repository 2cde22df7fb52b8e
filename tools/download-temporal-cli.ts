/**
 * A program: downloads the Temporal CLI as the SDK itself does, from Temporal's own site, into the
 * directory given. It is a process of its own because the SDK does so only while it starts a
 * server, and its runtime can be set up only once in a process.
 *
 *     node download-temporal-cli.ts DIRECTORY
 */
import { argv } from 'node:process';
import { TestWorkflowEnvironment } from '@temporalio/testing';

const [, , downloadDir = '.'] = argv;
const environment = await TestWorkflowEnvironment.createLocal({
  server: { executable: { type: 'cached-download', downloadDir } },
});
await environment.teardown();
