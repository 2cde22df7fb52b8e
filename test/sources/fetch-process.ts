/** Downloads a whole model in a process of its own: `endpoint repo cacheDirectory rangeBytes`. */
import { fetchModel } from '../../sources/fetch-model.ts';
import { resolveHubModel } from '../../sources/hub-model.ts';

const [endpoint, repo, cacheDirectory, rangeBytes] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
];
const connection = { endpoint };
const model = await resolveHubModel(connection, { repo, revision: 'main' });
const { bytesReceived } = await fetchModel(connection, {
  model,
  files: model.files,
  cacheDirectory,
  rangeBytes: Number(rangeBytes),
});
console.log(JSON.stringify({ bytesReceived }));
