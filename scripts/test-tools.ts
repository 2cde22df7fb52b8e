/**
 * Installs what the tests run of other programs into `.tools`, as weldline itself does it. A no-op
 * where it is there.
 */
import { readEnvironment } from '../config/environment.ts';
import { TEST_TOOLS } from '../test/tools/test-tools.ts';
import { installPythonTools } from '../tools/install-python-tools.ts';

const environment = { ...readEnvironment(), toolsDirectory: TEST_TOOLS };
const { python, versions } = await installPythonTools({
  environment,
  onProgress: (line) => console.log(line),
});
console.log(python, JSON.stringify(versions));
