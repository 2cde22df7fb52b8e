import { fileURLToPath } from 'node:url';
import { findPythonTools } from '../../tools/find-python-tools.ts';
import type { LlamaCpp } from '../../tools/llama-cpp.ts';
import type { PythonTools } from '../../tools/python-tools.ts';

/** Outside any test's home, so that a checkout installs the tools once; `npm test` does. */
export const TEST_TOOLS = fileURLToPath(new URL('../../.tools', import.meta.url));

/** The real llama.cpp. */
export async function testLlamaCpp(): Promise<LlamaCpp> {
  const directory = `${TEST_TOOLS}/llama-cpp`;
  return {
    origin: 'installed',
    directory,
    version: 'v0.4.0 (80fb11ac)',
    converter: `${directory}/source`,
    libraries: `${directory}/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64`,
    modules: `${directory}/node_modules`,
    programs: {},
  };
}

/** The real torch, transformers, PEFT and llm-compressor. */
export async function testPythonTools(): Promise<PythonTools> {
  const found = await findPythonTools({ environment: { toolsDirectory: TEST_TOOLS } });
  if (found !== undefined) return found;
  throw new Error('The Python tools are not there: run `node scripts/test-tools.ts`.');
}
