import { closestName } from '../config/closest-name.ts';
import { type Environment, readEnvironment } from '../config/environment.ts';
import { findLlamaCpp } from '../tools/find-llama-cpp.ts';
import { findPythonTools } from '../tools/find-python-tools.ts';
import { installLlamaCpp } from '../tools/install-llama-cpp.ts';
import { installPythonTools } from '../tools/install-python-tools.ts';
import type { LlamaCpp } from '../tools/llama-cpp.ts';
import { LLAMA_CPP_INSTALLED_BYTES } from '../tools/llama-cpp-release.ts';
import type { PythonTools } from '../tools/python-tools.ts';
import { EXIT } from './exit-codes.ts';
import { InstallProgress } from './install-progress.ts';
import { interruptionSignal } from './interruption.ts';
import type { Output } from './output.ts';
import { usage } from './usage.ts';

/** What is installed for each purpose: converting to GGUF, quantizing, evaluating. */
const TOOLS_FOR: Readonly<Record<string, readonly ('llamaCpp' | 'python')[]>> = {
  gguf: ['llamaCpp', 'python'],
  awq: ['python'],
  eval: ['llamaCpp', 'python'],
};

/**
 * `weldline tools install`: pinned tools into weldline's own folder. One of the user's own that fits
 * is used as it is.
 */
export async function runToolsInstall(names: readonly string[], output: Output): Promise<number> {
  const wanted = new Set(names.flatMap(toolsFor));
  const environment = readEnvironment();
  const signal = interruptionSignal();
  const progress = new InstallProgress(environment.toolsDirectory);
  const options = {
    environment,
    signal,
    onProgress: (line: string) => progress.step(line),
  };
  try {
    progress.begin('llama.cpp', LLAMA_CPP_INSTALLED_BYTES);
    const llamaCpp = wanted.has('llamaCpp') ? await provideLlamaCpp(options) : undefined;
    // Its packages are counted.
    progress.begin('Python tools', 0);
    const python = wanted.has('python') ? await providePython(options) : undefined;
    progress.stop();
    if (llamaCpp !== undefined) {
      output.line(`llama.cpp ${llamaCpp.version} in ${llamaCpp.directory}`);
    }
    if (python !== undefined) {
      const versions = Object.entries(python.versions).map(([name, each]) => `${name} ${each}`);
      output.line(`${versions.join(', ')} in ${python.python}`);
    }
    output.result({ llamaCpp, python });
    return EXIT.ok;
  } finally {
    progress.stop();
  }
}

interface ProvideOptions {
  environment: Environment;
  signal: AbortSignal;
  onProgress: (line: string) => void;
}

async function provideLlamaCpp(options: ProvideOptions): Promise<LlamaCpp> {
  const found = await findLlamaCpp(options);
  // The installed one is tried, and replaced where it does not work.
  return found === undefined || found.origin === 'installed' ? installLlamaCpp(options) : found;
}

async function providePython(options: ProvideOptions): Promise<PythonTools> {
  return (await findPythonTools(options)) ?? installPythonTools(options);
}

/** @throws WeldlineError `cli.usage` that names the nearest purpose */
function toolsFor(name: string): readonly ('llamaCpp' | 'python')[] {
  const tools = TOOLS_FOR[name];
  if (tools !== undefined) return tools;
  const known = Object.keys(TOOLS_FOR);
  const closest = name === 'gptq' ? 'awq' : closestName(name, known);
  throw usage(
    `There are no tools for "${name}"${closest === undefined ? '' : `; did you mean ${closest}?`} ` +
      `Give any of ${known.join(', ')}.`,
  );
}
