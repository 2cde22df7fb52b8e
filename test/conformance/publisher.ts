import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe } from 'vitest';
import { testAliases } from './publisher-aliases.ts';
import { testArtefacts } from './publisher-artefacts.ts';
import { testFaults } from './publisher-faults.ts';
import { testPublication } from './publisher-publication.ts';
import { type PublisherTraits, type PublisherUnderTest, Stage } from './publisher-stage.ts';

export {
  type PublisherTraits,
  type PublisherUnderTest,
  RELEASE,
  signal,
  TEST_PATIENCE,
} from './publisher-stage.ts';

/**
 * What every publisher must do.
 * @param open makes an empty target
 */
export function testPublisher(
  name: string,
  open: () => Promise<PublisherUnderTest>,
  traits: PublisherTraits = {},
): void {
  describe(`${name} as a publisher`, () => {
    const stage = new Stage(traits);
    beforeEach(async () => {
      stage.directory = await mkdtemp(join(tmpdir(), 'weldline-publisher-'));
      stage.under = await open();
    });
    afterEach(async () => {
      await stage.under?.cleanUp();
      await rm(stage.directory, { recursive: true, force: true });
    });
    testPublication(stage);
    testArtefacts(stage);
    testAliases(stage);
    if (traits.hasServer === true) testFaults(stage);
  });
}
