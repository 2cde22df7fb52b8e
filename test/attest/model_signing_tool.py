"""What the tool model_signing of PyPI says: a list of questions as JSON on standard input.

One process for all of them, because it takes a second to load.
"""

import hashlib
import json
import pathlib
import sys

from model_signing import manifest, signing, verifying
from model_signing._hashing import hashing
from model_signing._signing import signing as payloads


def sign(question):
    config = signing.Config()
    if "key" in question:
        passphrase = question.get("passphrase")  # it wants bytes, whatever its types say
        config.use_elliptic_key_signer(
            private_key=question["key"], password=passphrase and passphrase.encode()
        )
    else:
        config.use_sigstore_signer(
            oidc_issuer=question["oidcIssuer"],
            identity_token=question["token"],
            trust_config=pathlib.Path(question["trustConfig"]),
        )
    config.sign(pathlib.Path(question["model"]), pathlib.Path(question["signature"]))
    return "signed"


def verify(question):
    config = verifying.Config()
    if "publicKey" in question:
        config.use_elliptic_key_verifier(public_key=question["publicKey"])
    else:
        config.use_sigstore_verifier(
            identity=question["identity"],
            oidc_issuer=question["issuer"],
            trust_config=pathlib.Path(question["trustConfig"]),
        )
    config.verify(pathlib.Path(question["model"]), pathlib.Path(question["signature"]))
    return "verified"


def order(question):
    """The resources of a model whose files hold their own names, and the digest of the whole."""
    items = [
        manifest.FileManifestItem(
            path=pathlib.PurePosixPath(name),
            digest=hashing.Digest("sha256", hashlib.sha256(name.encode()).digest()),
        )
        for name in question["names"]
    ]
    kind = manifest._FileSerialization("sha256")
    statement = payloads.Payload(manifest.Manifest("m", items, kind)).statement.pb
    resources = statement.predicate["resources"]
    return {
        "names": [resource["name"] for resource in resources],
        "root": statement.subject[0].digest["sha256"],
    }


def answer(question):
    try:
        return globals()[question["ask"]](question)
    except Exception as error:  # what the tool finds wrong is its answer
        return f"{type(error).__name__}: {error}"


print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
