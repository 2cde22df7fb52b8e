/**
 * What the threads of a merge share: four numbers, changed atomically.
 *
 * Windows are given out in file order. A thread keeps a window's bytes until the main thread has
 * hashed them, which happens in file order too, so a thread that waits is never waited for by the
 * one before it.
 */
const NEXT = 0;
const STOPPED = 1;
const HASHED_WINDOWS = 2;
const ANSWERS = 3;
const SLOTS = 4;

/** More than any file has windows. */
const ALL = 0x7fff_ffff;

export function createControl(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * Int32Array.BYTES_PER_ELEMENT);
}

/** Index of a window, or other piece of work, that no other thread gets; beyond the last at the end. */
export function takeNext(control: Int32Array): number {
  return Atomics.add(control, NEXT, 1);
}

export function isStopped(control: Int32Array): boolean {
  return Atomics.load(control, STOPPED) !== 0;
}

/** Makes every thread end after the work it is at. */
export function stop(control: Int32Array): void {
  Atomics.store(control, STOPPED, 1);
  letGo(control, ALL);
  wakeReaders(control);
}

/** Says that a read request was answered, or never will be. */
export function wakeReaders(control: Int32Array): void {
  Atomics.add(control, ANSWERS, 1);
  Atomics.notify(control, ANSWERS);
}

/**
 * In a thread: waits until a read request is answered.
 * @param isAnswered looks whether it is
 * @returns false if the threads were stopped instead
 */
export function waitForAnswer(control: Int32Array, isAnswered: () => boolean): boolean {
  for (;;) {
    // Before looking: an answer that comes in between then ends the wait at once.
    const answers = Atomics.load(control, ANSWERS);
    if (isAnswered()) return true;
    if (isStopped(control)) return false;
    Atomics.wait(control, ANSWERS, answers);
  }
}

/** Says that the first `count` windows were hashed. */
export function letGo(control: Int32Array, count: number): void {
  // Never back: after a stop nobody must wait again.
  if (Atomics.load(control, HASHED_WINDOWS) >= count) return;
  Atomics.store(control, HASHED_WINDOWS, count);
  Atomics.notify(control, HASHED_WINDOWS);
}

export function waitUntilHashed(control: Int32Array, index: number): void {
  for (;;) {
    const hashed = Atomics.load(control, HASHED_WINDOWS);
    if (hashed > index) return;
    Atomics.wait(control, HASHED_WINDOWS, hashed);
  }
}
