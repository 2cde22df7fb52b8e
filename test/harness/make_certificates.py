"""Certificates of a throw-away authority. Reads {"directory": …}; writes PEM files there."""

import datetime
import json
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

directory = pathlib.Path(json.load(sys.stdin)["directory"])
now = datetime.datetime.now(datetime.timezone.utc)
day = datetime.timedelta(days=1)


def name_of(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def write(file, certificate, key):
    pem = serialization.Encoding.PEM
    (directory / f"{file}.pem").write_bytes(certificate.public_bytes(pem))
    form = serialization.PrivateFormat.PKCS8
    none = serialization.NoEncryption()
    (directory / f"{file}.key").write_bytes(key.private_bytes(pem, form, none))


def builder(name, issuer, key, ends):
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(name))
        .issuer_name(name_of(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 9 * day)
        .not_valid_after(now + ends * day)
    )


def authority(file):
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        builder(file, file, key, 9)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write(file, certificate, key)
    return file, key


def member(file, issuer, usage, ends=9):
    issuer_name, issuer_key = issuer
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder(file, issuer_name, key, ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("temporal.test")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    write(file, certificate, key)


ca = authority("ca")
other_ca = authority("other-ca")
member("server", ca, ExtendedKeyUsageOID.SERVER_AUTH)
member("expired-server", ca, ExtendedKeyUsageOID.SERVER_AUTH, ends=-1)
member("client", ca, ExtendedKeyUsageOID.CLIENT_AUTH)
member("expired-client", ca, ExtendedKeyUsageOID.CLIENT_AUTH, ends=-1)
member("other-client", other_ca, ExtendedKeyUsageOID.CLIENT_AUTH)
print("null")
