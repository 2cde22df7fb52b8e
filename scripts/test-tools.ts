/**
 * Installs what the tests run of other programs into `.tools`, as weldline itself does it. A no-op
 * where it is there.
 */
import { readEnvironment } from '../config/environment.ts';
import { TEST_TOOLS } from '../test/tools/test-tools.ts';
import { installLlamaCpp } from '../tools/install-llama-cpp.ts';
import { installPythonTools } from '../tools/install-python-tools.ts';

const environment = { ...readEnvironment(), toolsDirectory: TEST_TOOLS };
const onProgress = (line: string) => console.log(line);
const llamaCpp = await installLlamaCpp({ environment, onProgress });
console.log(llamaCpp.directory, llamaCpp.version);
const { python, versions } = await installPythonTools({ environment, onProgress });
console.log(python, JSON.stringify(versions));
