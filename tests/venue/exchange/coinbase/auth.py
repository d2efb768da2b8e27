"""Who asks: a token (JWT, ES256) made for this one method and path, good for two minutes."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.venue.exchange.accounts import Key
from tests.venue.exchange.coinbase.errors import Unauthorized
from tests.venue.exchange.wire import Call

LONGEST_S = 120
ISSUERS = ("coinbase-cloud", "cdp")


def made_key(name: str, may_trade: bool = True, may_withdraw: bool = False) -> Key:
    """A key of the account of that name: its own name as Coinbase's are, its secret in PEM; the same in each run."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 1
    secret = ec.derive_private_key(number, ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    organisation, key = (uuid.uuid5(uuid.NAMESPACE_OID, f"{part} of {name}") for part in ("organisation", "key"))
    return Key(f"organizations/{organisation}/apiKeys/{key}", secret.decode(), name, may_trade, may_withdraw)


def key_of(call: Call) -> Key:
    """As of now: when the request is processed, not when it arrived."""
    try:
        header, claims, signature, signed = _token(call.request.headers)
        key = call.exchange.keys[header["kid"]]
        good = header["alg"] == "ES256" and claims["sub"] == key.key and claims["iss"] in ISSUERS
        on_time = claims["nbf"] <= call.now_ms / 1000 < claims["exp"] <= claims["nbf"] + LONGEST_S
        _verify(key.secret, signature, signed)
    except (InvalidSignature, KeyError, TypeError, ValueError):
        raise Unauthorized from None
    if not (good and on_time and _is_for(call, claims["uri"])):
        raise Unauthorized
    return key


def _token(headers: Any) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    kind, _, token = {name.title(): value for name, value in headers.items()}["Authorization"].partition(" ")
    header, claims, signature = token.split(".")
    if kind != "Bearer":
        raise ValueError
    return json.loads(_bytes(header)), json.loads(_bytes(claims)), _bytes(signature), f"{header}.{claims}".encode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _verify(secret: str, signature: bytes, signed: bytes) -> None:
    private = serialization.load_pem_private_key(secret.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    private.public_key().verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))


def _is_for(call: Call, uri: str) -> bool:
    """ "GET api.coinbase.com/path": ccxt leaves out https://, and cannot know that here it is http://."""
    host = call.request.headers.get("Host", "")
    return uri.replace("http://", "") == f"{call.request.method} {host}{call.request.path}"
