import { statfs } from 'node:fs/promises';
import { Runtime } from '@temporalio/worker';

const INTERVAL_MS = 10_000;

/** Gauges of this process: its memory, and the disk of the home. @returns ends them */
export function startProcessMetrics(home: string): () => void {
  const meter = Runtime.instance().metricMeter;
  const free = meter.createGauge(
    'weldline_home_free_bytes',
    'int',
    undefined,
    'Bytes that may be written to the disk of WELDLINE_HOME',
  );
  const size = meter.createGauge(
    'weldline_home_size_bytes',
    'int',
    undefined,
    'Size of the disk of WELDLINE_HOME',
  );
  const memory = meter.createGauge(
    'weldline_resident_memory_bytes',
    'int',
    undefined,
    'Memory of the worker process that is not swapped out',
  );
  const measure = async (): Promise<void> => {
    memory.set(process.memoryUsage.rss());
    const disk = await statfs(home);
    free.set(disk.bavail * disk.bsize);
    size.set(disk.blocks * disk.bsize);
  };
  // A disk that does not answer is the activities' to tell.
  const look = (): void => void measure().catch(() => undefined);
  look();
  const timer = setInterval(look, INTERVAL_MS);
  timer.unref();
  return () => clearInterval(timer);
}
