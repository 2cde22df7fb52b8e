import { fileURLToPath } from 'node:url';
import { findLlamaCpp } from '../../tools/find-llama-cpp.ts';
import { findPythonTools } from '../../tools/find-python-tools.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import type { PythonTools } from '../../tools/python-tools.ts';

/** Outside any test's home, so that a checkout installs the tools once; `npm test` does. */
export const TEST_TOOLS = fileURLToPath(new URL('../../.tools', import.meta.url));

/** The real llama.cpp. Other processes use it too: it is not tried here, which could replace it. */
export async function testLlamaCpp(): Promise<LlamaCpp> {
  const environment = { toolsDirectory: TEST_TOOLS };
  // Not one on PATH.
  const found = await findLlamaCpp({ environment, variables: { PATH: '' } });
  if (found !== undefined) return found;
  throw new Error('llama.cpp is not there: run `node scripts/test-tools.ts`.');
}

/** The real torch, transformers, PEFT and llm-compressor. */
export async function testPythonTools(): Promise<PythonTools> {
  const found = await findPythonTools({ environment: { toolsDirectory: TEST_TOOLS } });
  if (found !== undefined) return found;
  throw new Error('The Python tools are not there: run `node scripts/test-tools.ts`.');
}
