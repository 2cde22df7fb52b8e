/** Everything that runs in the workflow sandbox. */
export { mergeModel } from './merge-model.ts';
export { nightlyRelease } from './nightly-release.ts';
export { releaseModel } from './release-model.ts';
