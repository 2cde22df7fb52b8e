"""Pulls an artefact with the official oras client, checks its configuration, and pushes another.

Reads {pulled, out, pushed, files, config, schema} as JSON: pulls `pulled` into the directory `out`
and checks its configuration against the JSON schema, pushes `files` (names and texts) as `pushed`,
with the credentials of Docker's configuration. Prints the paths and layers that it pulled.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import jsonschema
import oras.client

task = json.load(sys.stdin)
pulled, out, config_path = task["pulled"], task["out"], task["config"]
client = oras.client.OrasClient(insecure=True, auth_backend="basic")
client.auth.load_configs(client.get_container(pulled), configs=[config_path])

paths = client.pull(target=pulled, outdir=out, config_path=config_path)
manifest = client.get_manifest(client.get_container(pulled))
config = client.get_blob(pulled, manifest["config"]["digest"]).json()
jsonschema.Draft202012Validator(
    task["schema"],
    format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
).validate(config)

with tempfile.TemporaryDirectory() as directory:
    # The client takes files below the working directory only.
    os.chdir(directory)
    for name, text in task["files"].items():
        Path(name).write_text(text)
    first, *others = task["files"]
    files = [f"{first}:application/octet-stream", *others]
    client.push(target=task["pushed"], files=files, config_path=config_path, quiet=True)
    os.chdir("/")
layers = {
    layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"]
    for layer in manifest["layers"]
}
facts = {"paths": [str(Path(path).relative_to(out)) for path in paths], "layers": layers}
print(json.dumps({**facts, "artifactType": manifest["artifactType"]}))
