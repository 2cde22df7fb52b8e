/** A Python and a llama.cpp in known versions that fail in the way that a test asks for. */
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KNOWN_VERSIONS } from '../../tools/python-environment.ts';
import { testLlamaCpp, testPythonTools } from '../tools/test-tools.ts';

/** What runs in Python, by the names of its scripts; `inspect` is the converter before the merge. */
export type FailingProgram =
  | 'probe'
  | 'inspect'
  | 'run_converter'
  | 'quantize'
  | 'transformers_runner'
  | 'llama-quantize'
  | 'llama-gguf-split';

export interface FailingTools {
  /** For WELDLINE_PYTHON. */
  readonly python: string;
  /** For WELDLINE_LLAMA_CPP. */
  readonly llamaCpp: string;
  /** How a program fails from now on; without a mode it does what the real one does. */
  fail(program: FailingProgram, mode?: string): Promise<void>;
  /** Every process that was started so far. */
  started(): Promise<number[]>;
}

const RUNS_FOR = 3600;

export async function makeFailingTools(directory: string): Promise<FailingTools> {
  const path = (name: string): string => join(directory, name);
  const llamaCpp = path('llama.cpp');
  await mkdir(path('modes'), { recursive: true });
  await mkdir(llamaCpp);
  const { converter } = await testLlamaCpp();
  for (const name of await readdir(converter)) {
    await symlink(join(converter, name), join(llamaCpp, name));
  }
  await writeFile(path('fail'), failures(directory));
  const real = (await testPythonTools()).python;
  await writeProgram(path('python'), python(directory, real));
  await writeProgram(join(llamaCpp, 'llama-quantize'), program(directory, 'llama-quantize', '$2'));
  await writeProgram(
    join(llamaCpp, 'llama-gguf-split'),
    program(directory, 'llama-gguf-split', '', 'echo "version: 0.4.0 (build 1, commit abcdef)"'),
  );
  return {
    python: path('python'),
    llamaCpp,
    fail: (name, mode = '') => writeFile(join(directory, 'modes', name), mode),
    async started() {
      const text = await readFile(path('pids'), 'utf8');
      return text.split('\n').flatMap((line) => (line === '' ? [] : [Number(line)]));
    },
  };
}

async function writeProgram(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o755);
}

/** Sourced by the programs: `$mode` says how to fail, `$target` is what should be written. */
function failures(directory: string): string {
  return `
echo $$ >> '${directory}/pids'
hang() { sleep ${RUNS_FOR} & echo $! >> '${directory}/pids'; wait; }
case $mode in
  killed) exit 137 ;;
  ended) kill -9 $$ ;;
  full) echo "OSError: [Errno 28] No space left on device" >&2; exit 1 ;;
  fills) dd if=/dev/zero of="$target" bs=1M count=999; exit ;;
  failed) echo "ValueError: no such thing" >&2; exit 1 ;;
  hang) hang ;;
  garbage) printf '\\377\\033[31m{"gar": bage\\n'; exit 0 ;;
  half) head -c 5000 /dev/zero > "$target"; exit 0 ;;
  silent) echo '{"ready": true, "context": 256}'; hang ;;
  mute)
    echo '{"ready": true, "context": 256}'
    while read -r line; do
      id=$(printf %s "$line" | sed 's/^{"id":\\([0-9]*\\).*/\\1/')
      echo "{\\"id\\": $id, \\"done\\": true}"
    done
    exit 0 ;;
  says:*) echo "\${mode#says:}"; exit 0 ;;
esac
`;
}

function program(directory: string, name: string, target: string, otherwise = ''): string {
  return `#!/bin/sh
mode=$(cat '${directory}/modes/${name}' 2>/dev/null)
target=${target}
. '${directory}/fail'
${otherwise}
`;
}

/** Looks like all that weldline knows, and is the real one where it does not fail. */
function python(directory: string, real: string): string {
  const packages = Object.fromEntries(
    Object.entries(KNOWN_VERSIONS).map(([name, [series = '1']]) => [name, `${series}.0`]),
  );
  const facts = { executable: join(directory, 'python'), python: '3.11.0', packages };
  return `#!/bin/sh
# What it would make of the model is asked once, since importing torch takes its time.
inspected='${directory}/inspected'
[ "$1" = -B ] && shift
name=$(basename "$1" .py)
[ "$2" = --inspect ] && name=inspect
mode=$(cat "${directory}/modes/$name" 2>/dev/null)
target=
previous=
for each in "$@"; do
  [ "$previous" = --outfile ] && target=$each
  previous=$each
done
. '${directory}/fail'
if [ "$name" = probe ]; then echo '${JSON.stringify(facts)}'; exit; fi
if [ "$name" = inspect ] && [ -e "$inspected" ]; then cat "$inspected"; exit; fi
# The real one is silent for longer than a test may wait for one that hangs.
( while sleep 0.5; do echo "still there" >&2; done ) &
ticker=$!
if [ "$name" = inspect ]; then
  '${real}' "$@" > "$inspected.new"
  status=$?
  [ $status = 0 ] && mv "$inspected.new" "$inspected" && cat "$inspected"
else
  '${real}' "$@"
  status=$?
fi
kill $ticker
exit $status
`;
}
