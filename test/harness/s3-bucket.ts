import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3';

/** A bucket as anybody's client sees it: what tests look at it with. */
export class S3Bucket {
  readonly client: S3Client;
  readonly name: string;

  private constructor(client: S3Client, name: string) {
    this.client = client;
    this.name = name;
  }

  static async create(endpoint: string, name: string): Promise<S3Bucket> {
    const client = new S3Client({ endpoint, forcePathStyle: true });
    await client.send(new CreateBucketCommand({ Bucket: name }));
    return new S3Bucket(client, name);
  }

  async keys(prefix: string): Promise<readonly string[]> {
    const keys: string[] = [];
    const query = { Bucket: this.name, Prefix: prefix };
    for await (const { Contents: objects = [] } of paginateListObjectsV2(
      { client: this.client },
      query,
    )) {
      keys.push(...objects.map(({ Key }) => Key ?? ''));
    }
    return keys;
  }

  /** Keys of objects, and of uploads that were not finished. */
  async keysAndUploads(prefix: string): Promise<readonly string[]> {
    const command = new ListMultipartUploadsCommand({ Bucket: this.name, Prefix: prefix });
    const { Uploads: uploads = [] } = await this.client.send(command);
    return [...(await this.keys(prefix)), ...uploads.map(({ Key }) => Key ?? '')];
  }

  /** Content of all objects below a prefix, by the rest of their keys. */
  async read(prefix: string): Promise<ReadonlyMap<string, Buffer>> {
    const files = new Map<string, Buffer>();
    for (const key of await this.keys(prefix)) {
      const command = new GetObjectCommand({ Bucket: this.name, Key: key });
      const { Body: body } = await this.client.send(command);
      files.set(key.slice(prefix.length), Buffer.from(await body!.transformToByteArray()));
    }
    return files;
  }

  async put(
    key: string,
    body: string | Buffer,
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const content = { Body: body, Metadata: metadata };
    await this.client.send(new PutObjectCommand({ Bucket: this.name, Key: key, ...content }));
  }

  async remove(key: string): Promise<void> {
    await this.client.send(new DeleteObjectCommand({ Bucket: this.name, Key: key }));
  }

  close(): void {
    this.client.destroy();
  }
}
