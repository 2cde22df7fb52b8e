import { describe, expect, it } from 'vitest';
import { readEnvironment } from '../../config/environment.ts';
import { readRoles } from '../../workers/roles.ts';
import { chooseSlots } from '../../workers/slots.ts';

const GB = 1e9;

function slots(processors: number, gigabytes: number, variables: Record<string, string> = {}) {
  const environment = readEnvironment({ WELDLINE_HOME: '/home/weldline', ...variables });
  return chooseSlots({ processors, memoryBytes: gigabytes * GB }, environment);
}

describe('merges side by side', () => {
  it.each([
    ['a small machine', 2, 4, {}, 1],
    ['as many as its processors are enough for', 32, 256, {}, 4],
    ['as many as its memory is enough for', 32, 1.5, {}, 2],
    ['one, however little there is', 1, 0.25, {}, 1],
    ['fewer threads, more merges', 16, 64, { WELDLINE_THREADS: '2' }, 8],
    ['a larger budget, fewer merges', 32, 16, { WELDLINE_MEMORY_BUDGET: '4GB' }, 3],
    ['what the operator says', 2, 4, { WELDLINE_MERGE_SLOTS: '6' }, 6],
  ])('%s', (_what, processors, gigabytes, variables, expected) => {
    expect(slots(processors, gigabytes, variables).merge).toBe(expected);
  });

  it('come with their reason', () => {
    expect(slots(32, 16).reason).toBe(
      '32 processors for 8 threads each, 16.0 GB of memory for 0.5 GB each',
    );
    expect(slots(32, 16, { WELDLINE_MERGE_SLOTS: '6' }).reason).toBe('WELDLINE_MERGE_SLOTS');
  });
});

describe('other work side by side', () => {
  it('takes all processors where it is a program, so one at a time', () => {
    expect(slots(64, 512)).toMatchObject({ convert: 1, gpu: 1, control: 8 });
    const given = { WELDLINE_CONVERT_SLOTS: '2', WELDLINE_GPU_SLOTS: '4' };
    expect(slots(64, 512, given)).toMatchObject({ convert: 2, gpu: 4 });
  });

  it('is less where memory is short', () => {
    expect(slots(4, 1).control).toBe(3);
    expect(slots(1, 0.25).control).toBe(1);
  });
});

describe('the roles of a worker', () => {
  const shared = { storage: 'shared', host: 'node-7' } as const;
  const local = { storage: 'local', host: 'node-7' } as const;

  it('are all where nobody says which, and else those named', () => {
    expect(readRoles([], shared)).toEqual(['control', 'merge', 'convert', 'gpu']);
    expect(readRoles(['gpu', 'merge', 'gpu'], shared)).toEqual(['merge', 'gpu']);
    expect(readRoles([], local)).toHaveLength(4);
  });

  it('are refused with the reason', () => {
    expect(() => readRoles(['merges'], shared)).toThrow(
      'There is no role "merges". The roles of workers are control, merge, convert, gpu.',
    );
    expect(() => readRoles(['merge'], local)).toThrow(/host node-7 does its releases alone/);
  });
});
