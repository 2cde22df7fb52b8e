import { access, constants, stat } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';

/** The first executable file called `name` in the directories of `path`, or undefined. */
export async function findOnPath(
  name: string,
  path: string | undefined,
): Promise<string | undefined> {
  const directories = (path ?? '').split(delimiter).filter((directory) => isAbsolute(directory));
  for (const directory of directories) {
    const candidate = join(directory, name);
    if (await isExecutable(candidate)) return candidate;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
