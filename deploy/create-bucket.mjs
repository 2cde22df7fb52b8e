/** Creates the bucket that the first argument names, at AWS_ENDPOINT_URL_S3. Idempotent. */
import { CreateBucketCommand, HeadBucketCommand, S3Client } from '@aws-sdk/client-s3';

const NOT_FOUND = 404;

const [bucket] = process.argv.slice(2);
const endpoint = process.env.AWS_ENDPOINT_URL_S3;
if (!bucket || !endpoint) {
  process.stderr.write('usage: AWS_ENDPOINT_URL_S3=URL node create-bucket.mjs BUCKET\n');
  process.exit(2);
}
// Path style, as weldline's own publisher asks such servers.
const client = new S3Client({ endpoint, forcePathStyle: true });
try {
  const exists = await client.send(new HeadBucketCommand({ Bucket: bucket })).then(
    () => true,
    (error) => {
      if (error.$metadata?.httpStatusCode === NOT_FOUND) return false;
      throw error;
    },
  );
  if (!exists) await client.send(new CreateBucketCommand({ Bucket: bucket }));
  process.stdout.write(`bucket ${bucket} ${exists ? 'exists' : 'created'}\n`);
} catch (error) {
  process.stderr.write(
    `The bucket ${bucket} at ${endpoint} is not to be had (${error.name}: ${error.message}). ` +
      'Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and that the server runs.\n',
  );
  process.exitCode = 1;
} finally {
  client.destroy();
}
