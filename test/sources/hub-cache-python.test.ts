import { readFile, realpath, truncate } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchModel } from '../../sources/fetch-model.ts';
import { type HubModel, resolveHubModel } from '../../sources/hub-model.ts';
import { testBytes } from '../hub-server/test-bytes.ts';
import { startTestHub, type TestHub } from '../hub-server/test-hub.ts';
import { runOraclePython } from '../oracle-python.ts';

const FILES = {
  'config.json': '{"hidden_size": 64}',
  'model.safetensors': testBytes(1_500_000),
  'templates/chat.jinja': '{{ messages }}',
};
const TOKEN = 'hf_good';

let hub: TestHub;
beforeEach(async () => {
  hub = await startTestHub(
    {
      'acme/tiny': { main: FILES, 'refs/pr/1': { 'config.json': '{"hidden_size": 128}' } },
      'acme/gated': { main: FILES },
    },
    { gatedRepositories: { 'acme/gated': [TOKEN] }, pageSize: 2 },
  );
});
afterEach(() => hub.close());

/** Runs `lines` after the imports of the official client and parses the JSON it prints. */
async function python(lines: string, endpoint = hub.endpoint): Promise<unknown> {
  const imports =
    'import json\nfrom huggingface_hub import *\nfrom huggingface_hub.errors import *\n';
  const output = await runOraclePython(`${imports}${lines}`, {
    HF_ENDPOINT: endpoint,
    HF_HUB_CACHE: hub.cacheDirectory,
    HF_HOME: path.join(hub.cacheDirectory, '..', 'home'),
    HF_HUB_DISABLE_XET: '1',
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
    HF_HUB_DISABLE_TELEMETRY: '1',
  });
  return JSON.parse(output);
}

async function fetchAll(
  revision: string,
): Promise<{ model: HubModel; bytesReceived: number; directory: string }> {
  const model = await resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision });
  const options = { model, files: model.files, cacheDirectory: hub.cacheDirectory };
  return { model, ...(await fetchModel(hub.connection(), options)) };
}

/** An endpoint at which nothing listens: whoever asks it fails. */
const NOWHERE = 'http://127.0.0.1:9';

describe('the official Python client', () => {
  it('finds what weldline downloaded without asking the hub', async () => {
    const { directory } = await fetchAll('main');
    await fetchAll('refs/pr/1');
    const found = await python(
      `print(json.dumps([
        snapshot_download("acme/tiny", local_files_only=True),
        hf_hub_download("acme/tiny", "templates/chat.jinja", local_files_only=True),
        hf_hub_download("acme/tiny", "config.json", revision="refs/pr/1", local_files_only=True),
        try_to_load_from_cache("acme/tiny", "model.safetensors"),
      ]))`,
      NOWHERE,
    );
    const change = path.join(path.dirname(directory), hub.commitOf('acme/tiny', 'refs/pr/1'));
    expect(found).toEqual([
      directory,
      path.join(directory, 'templates/chat.jinja'),
      path.join(change, 'config.json'),
      path.join(directory, 'model.safetensors'),
    ]);
  });

  it('sees a cache in good order, with nothing left over', async () => {
    await fetchAll('main');
    await fetchAll('refs/pr/1');
    const seen = await python(
      `info = scan_cache_dir()
print(json.dumps([
  [str(warning) for warning in info.warnings],
  [str(file) for file in info.incomplete_files],
  sorted((sorted(revision.refs), len(revision.files)) for repo in info.repos for revision in repo.revisions),
]))`,
    );
    expect(seen).toEqual([
      [],
      [],
      [
        [['main'], 3],
        [['refs/pr/1'], 1],
      ],
    ]);
  });

  it('downloads no content that weldline has', async () => {
    const { directory } = await fetchAll('main');
    hub.requests.length = 0;
    expect(await python('print(json.dumps(snapshot_download("acme/tiny")))')).toBe(directory);
    expect(hub.contentBytes()).toBe(0);
  });

  it('leaves behind what weldline uses', async () => {
    const directory = (await python('print(json.dumps(snapshot_download("acme/tiny")))')) as string;
    const link = await realpath(path.join(directory, 'model.safetensors'));
    hub.requests.length = 0;
    const fetched = await fetchAll('main');
    expect(fetched).toMatchObject({ directory, bytesReceived: 0 });
    expect(hub.contentBytes()).toBe(0);
    expect(await realpath(path.join(directory, 'model.safetensors'))).toBe(link);
  });

  it('is replaced by weldline where it left a truncated blob', async () => {
    const directory = (await python('print(json.dumps(snapshot_download("acme/tiny")))')) as string;
    const blob = await realpath(path.join(directory, 'model.safetensors'));
    await truncate(blob, 1_000_000);
    const { bytesReceived } = await fetchAll('main');
    expect(bytesReceived).toBe(FILES['model.safetensors'].length);
    const content = await readFile(path.join(directory, 'model.safetensors'));
    expect(Buffer.compare(content, FILES['model.safetensors'])).toBe(0);
  });

  it('works against the hub server as against the hub', async () => {
    const answers = await python(
      `def refused(call):
  try:
    call()
  except Exception as error:
    return type(error).__name__
print(json.dumps([
  [(s.rfilename, s.size, s.lfs.sha256 if s.lfs else s.blob_id) for s in model_info("acme/tiny", files_metadata=True).siblings],
  list_repo_files("acme/tiny", revision="refs/pr/1"),
  get_hf_file_metadata(hf_hub_url("acme/tiny", "model.safetensors")).size,
  refused(lambda: hf_hub_download("acme/tiny", "absent.json")),
  refused(lambda: hf_hub_download("acme/tiny", "config.json", revision="absent")),
  refused(lambda: model_info("acme/absent")),
  refused(lambda: hf_hub_download("acme/gated", "config.json")),
  refused(lambda: hf_hub_download("acme/gated", "config.json", token="${TOKEN}")),
]))`,
    );
    const model = await resolveHubModel(hub.connection(), { repo: 'acme/tiny', revision: 'main' });
    expect(answers).toEqual([
      model.files.map(({ path: name, size, sha256, gitSha1 }) => [name, size, sha256 ?? gitSha1]),
      ['config.json'],
      FILES['model.safetensors'].length,
      'RemoteEntryNotFoundError',
      'RevisionNotFoundError',
      'RepositoryNotFoundError',
      'GatedRepoError',
      null,
    ]);
  });
});
