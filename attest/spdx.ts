/**
 * Licences that models have, as SPDX spells them: https://spdx.org/licenses. The hub writes them in
 * small letters: https://huggingface.co/docs/hub/repositories-licenses.
 */
const IDS = [
  ...['0BSD', 'AFL-3.0', 'AGPL-3.0', 'AGPL-3.0-only', 'AGPL-3.0-or-later', 'Apache-2.0'],
  ...['Artistic-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'BSD-3-Clause-Clear', 'BSL-1.0', 'CC0-1.0'],
  ...['CC-BY-2.0', 'CC-BY-2.5', 'CC-BY-3.0', 'CC-BY-4.0', 'CC-BY-SA-3.0', 'CC-BY-SA-4.0'],
  ...['CC-BY-NC-2.0', 'CC-BY-NC-3.0', 'CC-BY-NC-4.0', 'CC-BY-ND-4.0', 'CC-BY-NC-ND-3.0'],
  ...['CC-BY-NC-ND-4.0', 'CC-BY-NC-SA-2.0', 'CC-BY-NC-SA-3.0', 'CC-BY-NC-SA-4.0'],
  ...['CDLA-Permissive-1.0', 'CDLA-Permissive-2.0', 'CDLA-Sharing-1.0', 'ECL-2.0', 'EPL-1.0'],
  ...['EPL-2.0', 'EUPL-1.1', 'EUPL-1.2', 'GPL-2.0', 'GPL-2.0-only', 'GPL-2.0-or-later', 'GPL-3.0'],
  ...['GPL-3.0-only', 'GPL-3.0-or-later', 'ISC', 'LGPL-2.1', 'LGPL-3.0', 'LPPL-1.3c', 'MIT'],
  ...['MPL-2.0', 'MS-PL', 'NCSA', 'OFL-1.1', 'OSL-3.0', 'PostgreSQL', 'Unlicense', 'WTFPL'],
  ...['Zlib', 'ODC-By-1.0', 'ODbL-1.0', 'PDDL-1.0', 'etalab-2.0'],
] as const;

/** What the hub calls otherwise than by the id in small letters. */
const HUB_NAMES: Readonly<Record<string, string>> = {
  'odc-by': 'ODC-By-1.0',
  odbl: 'ODbL-1.0',
  pddl: 'PDDL-1.0',
};

const BY_LOWER_CASE = new Map<string, string>([
  ...IDS.map((id) => [id.toLowerCase(), id] as const),
  ...Object.entries(HUB_NAMES),
]);

export const SPDX_IDS: readonly string[] = IDS;

/** @returns undefined for a licence that SPDX has no id for, such as `llama3.1` and `other` */
export function spdxId(license: string): string | undefined {
  return BY_LOWER_CASE.get(license.toLowerCase());
}
