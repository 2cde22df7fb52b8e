import { readFileSync } from 'node:fs';

/** Bytes that a process has asked the kernel to read and write, from the page cache or not. */
export interface ProcessIo {
  readonly read: number;
  readonly written: number;
}

/** Of all threads of a process so far, from Linux' /proc; zeros once it is gone. */
export function ioOf(pid: number): ProcessIo {
  let text = '';
  try {
    text = readFileSync(`/proc/${pid}/io`, 'utf8');
  } catch {
    // It has ended.
  }
  const field = (name: string): number =>
    Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return { read: field('rchar'), written: field('wchar') };
}
