import { fileURLToPath } from 'node:url';
import { childVariables } from '../../config/environment.ts';
import { findPythonTools } from '../../tools/find-python-tools.ts';
import { installLlamaCpp } from '../../tools/install-llama-cpp.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import type { PythonTools } from '../../tools/python-tools.ts';

/** Outside any test's home, so that a checkout installs the tools once; `npm test` does. */
export const TEST_TOOLS = fileURLToPath(new URL('../../.tools', import.meta.url));

/** The real llama.cpp, installed into the checkout by the first that asks. */
export async function testLlamaCpp(): Promise<LlamaCpp> {
  const environment = { toolsDirectory: TEST_TOOLS };
  return await installLlamaCpp({ environment, variables: childVariables() });
}

/** The real torch, transformers, PEFT and llm-compressor. */
export async function testPythonTools(): Promise<PythonTools> {
  const found = await findPythonTools({ environment: { toolsDirectory: TEST_TOOLS } });
  if (found !== undefined) return found;
  throw new Error('The Python tools are not there: run `node scripts/test-tools.ts`.');
}
