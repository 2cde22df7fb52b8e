import type { TestServer } from './temporal-server.ts';
import { waitFor } from './wait-for.ts';

/** The deployment of the tests' workers. */
export const DEPLOYMENT = 'weldline';

/** As `temporal worker deployment set-current-version` does, once a worker of it is there. */
export async function setCurrentVersion(server: TestServer, buildId: string): Promise<void> {
  const { namespace, client } = server;
  const request = { namespace, deploymentName: DEPLOYMENT, buildId };
  await waitFor(`version ${buildId} to be known`, () =>
    client.workflowService.setWorkerDeploymentCurrentVersion(request).then(
      () => true,
      () => undefined,
    ),
  );
}
