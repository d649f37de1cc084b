"""Google service account keys: JSON with a private key, which signs a request for a short-lived access token.

Owns the check of such a key when it is stored, and the signed assertion (RFC 7523, a JWT with RS256). The private key
never leaves this module. Must not know HTTP.
"""

import base64
import json
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keystore.errors import CredentialUnusable
from keystore.secret import Secret

GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
LIFETIME_S: Final = 3600
# Reading an RSA key checks it, and nothing else runs meanwhile: 40 ms for 2048 bits, the most that Google gives, but
# seconds for 8192.
MOST_PEM: Final = 2000  # characters; of 2048 bits it has 1704
_NEEDED: Final = ("client_email", "private_key", "private_key_id")


def compact(text: str) -> str | None:
    """The key's JSON without white space between its parts, or None when it is no service account key."""
    try:
        account = _account(text)
        _private_key(account)
    except CredentialUnusable:
        return None
    return json.dumps(account, separators=(",", ":"))


def assertion(secret: Secret, *, audience: str, now: datetime) -> str:
    """The signed JWT that `audience`, the token endpoint, exchanges for an access token. CredentialUnusable when the
    secret is no service account key."""
    account = _account(secret.reveal())
    key, issued = _private_key(account), int(now.timestamp())
    head = {"alg": "RS256", "typ": "JWT", "kid": account["private_key_id"]}
    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": audience,
        "iat": issued,
        "exp": issued + LIFETIME_S,
    }
    signed = f"{_part(head)}.{_part(claims)}"
    return f"{signed}.{_base64url(key.sign(signed.encode('ascii'), PKCS1v15(), SHA256()))}"


def _account(text: str) -> dict[str, Any]:
    try:
        account = json.loads(text)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict) or account.get("type") != "service_account":
        raise CredentialUnusable("it is not the JSON of a service account key")
    if not all(isinstance(account.get(name), str) for name in _NEEDED):
        raise CredentialUnusable("the JSON of the service account key lacks a field")
    return account


def _private_key(account: dict[str, Any]) -> RSAPrivateKey:
    if len(account["private_key"]) > MOST_PEM:
        raise CredentialUnusable("the private key of the service account is longer than Google's, which have 2048 bits")
    try:
        key = load_pem_private_key(account["private_key"].encode("utf-8"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CredentialUnusable("the private key of the service account cannot be read") from None
    if not isinstance(key, RSAPrivateKey):
        raise CredentialUnusable("the private key of the service account is no RSA key")
    return key


def _part(value: dict[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode("utf-8"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
