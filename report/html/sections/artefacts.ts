import type { ConversionManifest } from '../../../conversion/conversion-step.ts';
import { counted, formatBytes } from '../../figures.ts';
import type { ReportFacts } from '../../report-facts.ts';
import { candidateName } from '../../wording.ts';
import { type Content, html, type Markup } from '../markup.ts';
import { code, outside, table } from '../table.ts';

type Files = ConversionManifest['files'];

/** What was made: sizes, settings, files with their digests, and where it was published. */
export function artefactsSection({ release, conversions, publications }: ReportFacts): Markup {
  const made = [
    { name: candidateName('merged'), files: release.files, manifest: undefined, isWanted: true },
    ...conversions.map(({ manifest, isWanted }) => ({
      ...{ name: manifest.id, files: manifest.files, manifest, isWanted },
    })),
  ];
  return html`<section aria-labelledby="artefacts">
<h2 id="artefacts">Artefacts and sizes</h2>
${table(
  'Artefacts and sizes',
  [
    { label: 'artefact' },
    { label: 'size', kind: 'number' },
    { label: 'bits per weight', kind: 'number' },
    { label: 'files', kind: 'number' },
    { label: 'settings', kind: 'text' },
  ],
  made.map(({ name, files, manifest, isWanted }) => [
    html`${outside(name)}${isWanted ? undefined : ' (only to make others of)'}`,
    formatBytes(bytesOf(files)),
    manifest?.bitsPerWeight?.toFixed(2) ?? '–',
    files.length,
    manifest === undefined ? dtypeOf(release.options) : settingsOf(manifest.settings),
  ]),
)}${made.map(({ name, files }) => filesOf(name, files))}${publicationsTable(publications)}</section>
`;
}

function bytesOf(files: Files): number {
  return files.reduce((sum, file) => sum + file.size, 0);
}

function dtypeOf(options: ReportFacts['release']['options']): Content {
  return `dtype ${options['dtype'] ?? 'as in the base'}`;
}

function settingsOf(settings: ConversionManifest['settings']): Content {
  const parts = Object.entries(settings).map(
    ([name, value]) => `${name} ${Array.isArray(value) ? value.join(', ') : value}`,
  );
  return parts.length === 0 ? '–' : parts.join('; ');
}

/** Any input's or artefact's files, folded away: there may be hundreds. */
export function filesOf(name: string, files: Files): Markup {
  return html`<details>
<summary>${outside(name)}: ${counted(files.length, 'file')}, ${formatBytes(bytesOf(files))}</summary>
${table(
  `Files of ${name}`,
  [{ label: 'file' }, { label: 'bytes', kind: 'number' }, { label: 'SHA-256', kind: 'text' }],
  files.map(({ path, size, sha256 }) => [code(path), size, code(sha256)]),
)}</details>
`;
}

function publicationsTable(publications: ReportFacts['publications']): Markup | undefined {
  if (publications.length === 0) return undefined;
  return html`<h3>Published</h3>
${table(
  'Published',
  [{ label: 'artefact' }, { label: 'where', kind: 'text' }, { label: 'was there before' }],
  publications.map(({ candidate, location, existed }) => [
    outside(candidate === undefined ? 'the release' : candidateName(candidate)),
    code(location),
    existed ? 'yes, the same' : 'no',
  ]),
)}`;
}
