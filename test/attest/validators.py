"""What the validators of other people say: a list of documents as JSON on standard input."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def bom(text):
    error = VALIDATOR.validate_str(text)
    return "valid" if error is None else str(error)


def provenance(text):
    statement = json_format.Parse(text, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    # Fields that SLSA does not have are errors here.
    predicate = json.loads(text)["predicate"]
    parsed = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    for dependency in parsed.build_definition.resolved_dependencies:
        if not (dependency.uri or dependency.digest):
            return f"{dependency.name} is not identified"
    return "valid"


def purl(text):
    return PackageURL.from_string(text).to_string()


def answer(question):
    try:
        return globals()[question["ask"]](question["text"])
    except Exception as error:  # what is wrong is the answer
        return f"{type(error).__name__}: {error}"


print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
