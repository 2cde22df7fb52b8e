import { describe, expect, it } from 'vitest';
import { MemorySlots } from '../../activities/memory-slots.ts';

const never = new AbortController().signal;

/** Work that ends when it is told to. */
function heldWork(): { readonly work: () => Promise<string>; readonly end: () => void } {
  const { promise, resolve } = Promise.withResolvers<string>();
  return { work: () => promise, end: () => resolve('done') };
}

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(pending)])) === pending;
}

describe('MemorySlots', () => {
  it('runs side by side what fits, and lets the rest wait', async () => {
    const slots = new MemorySlots(1000);
    const [first, second] = [heldWork(), heldWork()];
    const running = [slots.run(400, never, first.work), slots.run(400, never, second.work)];
    let started = false;
    const third = slots.run(1, never, async () => {
      started = true;
    });
    expect(await isPending(third)).toBe(true);
    expect(started).toBe(false);
    first.end();
    await third;
    expect(started).toBe(true);
    second.end();
    expect(await Promise.all(running)).toEqual(['done', 'done']);
  });

  it('runs alone what is larger than the machine', async () => {
    const slots = new MemorySlots(1000);
    const huge = heldWork();
    const running = slots.run(1e12, never, huge.work);
    const small = slots.run(1, never, async () => 'small');
    expect(await isPending(small)).toBe(true);
    huge.end();
    expect(await small).toBe('small');
    await running;
  });

  it('gives memory back when work fails', async () => {
    const slots = new MemorySlots(1000);
    const failing = slots.run(800, never, () => Promise.reject(new Error('no')));
    await expect(failing).rejects.toThrow('no');
    expect(await slots.run(800, never, async () => 'after')).toBe('after');
  });

  it('waits no longer for work that is given up', async () => {
    const slots = new MemorySlots(1000);
    const held = heldWork();
    const running = slots.run(800, never, held.work);
    const controller = new AbortController();
    const waiting = slots.run(800, controller.signal, async () => 'never');
    controller.abort(new Error('given up'));
    await expect(waiting).rejects.toThrow('given up');
    held.end();
    await running;
  });
});
