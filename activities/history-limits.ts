/**
 * What a release may put into Temporal's histories. Temporal warns of values above 512 KiB, refuses
 * those above 2 MB, and ends a workflow that passes one on: docs/large-models.md has what is measured.
 */
import { WeldlineError } from '../engine/errors.ts';

/** A person reads the first lines of a message; a program's whole output would fill histories. */
const TEXT_LENGTH_MAX = 8_000;
const WARNINGS_MAX = 50;
const WARNING_LENGTH_MAX = 1_000;

/**
 * A history holds 93 bytes for each finished shard, and 150 more where the base is on a hub. The
 * largest models have 200 files.
 */
const FILES_MAX = 5_000;

/** The text, cut where it is longer than a history has room for. */
export function shownText(text: string, lengthMax = TEXT_LENGTH_MAX): string {
  return text.length <= lengthMax ? text : `${text.slice(0, lengthMax)}…`;
}

/** The first lines, and how many more the report has. */
export function shownLines(lines: readonly string[], countMax = WARNINGS_MAX): readonly string[] {
  const first = lines.slice(0, countMax).map((line) => shownText(line, WARNING_LENGTH_MAX));
  const more = lines.length - first.length;
  return more === 0 ? first : [...first, `And ${more} more: see the report.`];
}

/** @throws WeldlineError `checkpoint.too-many-files` */
export function requireFewFiles(model: string, count: number): void {
  if (count <= FILES_MAX) return;
  throw new WeldlineError(
    'checkpoint.too-many-files',
    `${model} has ${count} files; a release takes up to ${FILES_MAX}. Save it with larger shards.`,
  );
}
