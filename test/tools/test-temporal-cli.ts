import { fileURLToPath } from 'node:url';
import { childVariables, readEnvironment } from '../../config/environment.ts';
import { ensureTemporalCli, type TemporalCli } from '../../tools/temporal-cli.ts';

/** Outside any test's home, so that a checkout installs the CLI once. */
const TOOLS = fileURLToPath(new URL('../../node_modules/.cache/weldline/tools', import.meta.url));

/** The real Temporal CLI, for every test that needs a server. */
export async function testTemporalCli(): Promise<TemporalCli> {
  const environment = { ...readEnvironment(), toolsDirectory: TOOLS };
  return await ensureTemporalCli({ environment, variables: childVariables() });
}
