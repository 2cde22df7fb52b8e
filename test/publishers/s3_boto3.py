"""What boto3 finds of an artefact, and a model that boto3 stores: a question as JSON on standard input."""

import hashlib
import json
import pathlib
import sys

import boto3
from boto3.s3.transfer import TransferConfig

question = json.load(sys.stdin)
s3 = boto3.client(
    "s3",
    endpoint_url=question["endpoint"],
    region_name="us-east-1",
    aws_access_key_id="boto3",
    aws_secret_access_key="boto3",
)
bucket, prefix = question["bucket"], question["prefix"]
directory = pathlib.Path(question["directory"])
# Both ways in parts and ranges, as it does with large files.
parts = TransferConfig(multipart_threshold=2**16, multipart_chunksize=2**16)

found = {}
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
    for entry in page["Contents"]:
        key, path = entry["Key"], directory / "downloaded"
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        s3.download_file(bucket, key, str(path), Config=parts)
        found[key[len(prefix) :]] = {
            "size": entry["Size"],
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "said": head["Metadata"].get("sha256"),
            "checksum": head.get("ChecksumSHA256"),
        }
alias = json.load(s3.get_object(Bucket=bucket, Key=question["alias"])["Body"])

for name in question["store"]:
    s3.upload_file(str(directory / name), bucket, f"boto3/{name}", Config=parts)

print(json.dumps({"found": found, "alias": alias}))
