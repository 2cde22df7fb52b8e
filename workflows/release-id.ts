/** The workflow id of a release: one run at a time for each name and version. */
export function releaseId(name: string, version: string): string {
  return `release-${name}-${version}`;
}

/** What a person may mean by an id: a release may be called release-notes, so the prefix says nothing. */
export function possibleIds(wanted: string): readonly string[] {
  return [wanted, `release-${wanted}`];
}
