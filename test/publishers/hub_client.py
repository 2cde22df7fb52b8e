"""What the official client makes of a hub that weldline published to.

Reads {endpoint, token, home, repo, tag, alias, upload, uploadRepo} as JSON from standard input and
prints what it saw as JSON. One process does all of it, since starting one takes a second.
"""

import json
import os
import sys
from pathlib import Path

given = json.load(sys.stdin)
os.environ.update(
    HF_ENDPOINT=given["endpoint"],
    HF_TOKEN=given["token"],
    HF_HOME=given["home"],
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)

from huggingface_hub import HfApi, ModelCard, snapshot_download  # noqa: E402

api = HfApi()
repo = given["repo"]


def files_at(repo: str, revision: str) -> dict[str, str]:
    """Paths of files, as they are on this disk, by their paths in the repository."""
    root = Path(snapshot_download(repo, revision=revision))
    return {
        str(path.relative_to(root)): str(path) for path in root.rglob("*") if path.is_file()
    }


card = ModelCard.load(Path(files_at(repo, given["tag"])["README.md"]))
info = api.model_info(repo, revision=given["alias"])
refs = api.list_repo_refs(repo)
tree = {item.path: item for item in api.list_repo_tree(repo, revision=given["tag"], recursive=True)}
weights = tree["model.safetensors"]
seen = {
    "tag": files_at(repo, given["tag"]),
    "alias": files_at(repo, given["alias"]),
    "commit": info.sha,
    "private": info.private,
    "tags": {tag.name: tag.target_commit for tag in refs.tags},
    "branches": {branch.name: branch.target_commit for branch in refs.branches},
    "weights": {"sha256": weights.lfs.sha256, "size": weights.lfs.size},
    "card": card.data.to_dict(),
    "cardSays": card.text.strip(),
}

# The other way round: what the client writes, it and weldline read.
mine = given["uploadRepo"]
api.create_repo(mine, private=True)
api.create_repo(mine, private=True, exist_ok=True)
commit = api.upload_folder(repo_id=mine, folder_path=given["upload"], commit_message="From Python")
api.create_tag(mine, tag="v1", revision=commit.oid)
api.delete_file("notes.md", mine)
seen["uploaded"] = {
    "files": files_at(mine, "v1"),
    "commits": [item.title for item in api.list_repo_commits(mine)],
    "main": sorted(api.list_repo_files(mine)),
    "listed": [model.id for model in api.list_models(author=mine.split("/")[0], search=mine.split("/")[1])],
}
json.dump(seen, sys.stdout)
