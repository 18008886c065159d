"""Tokens that must be refused, each with 401: by the API in both of its modes, and by the gateway.

`forged(mint, name)` makes the one of that name. A mint knows what the real signer knows; every forgery is either signed
with the real key but says something wrong, or says the right thing and is not signed as it should be.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bookapi.key_rotation import Folders
from bookapi.keys import kid_of, read_private, read_public

OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_EC = ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Mint:
    """What makes good tokens: change one thing and it must be refused."""

    key: Any  # a PEM or RSA private key for RS256, a secret for HS256
    algorithm: str = "RS256"
    kid: str | None = None
    sub: str = "1"
    fam: int = 1
    pwd: str = "0" * 16
    now: int = field(default_factory=lambda: int(time.time()))
    public_pem: bytes = b"-----BEGIN PUBLIC KEY-----\n"  # what everybody may know, and might sign HS256 with
    public_path: str = "public/current.pem"
    secret: str = "a secret that is not the one, of 32 bytes or more"  # HS256's, where RS256 is on

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good access token, changed; a change to None takes the claim out."""
        good = {
            "token_type": "access",
            "exp": self.now + 600,
            "iat": self.now,
            "jti": uuid.uuid4().hex,
            "sub": self.sub,
            "fam": self.fam,
            "pwd": self.pwd,
            "iss": "bookapi",
            "aud": "bookapi",
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, payload: Mapping[str, Any] | bytes | None = None, **other: Any) -> str:
        """A good token, or one with another payload, key, algorithm or other header fields."""
        if payload is None:
            payload = self.claims()
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        key, algorithm = other.pop("key", self.key), other.pop("algorithm", self.algorithm)
        headers = {**({"kid": self.kid} if self.kid else {}), **other}
        return jwt.PyJWS().encode(data, key, algorithm=algorithm, headers=headers)


def mint_of(folders: Folders, **known: Any) -> Mint:
    """The authentication service of these keys."""
    path = folders.public / "current.pem"
    return Mint(
        read_private(folders.private / "current.pem"),
        kid=kid_of(read_public(path)),
        public_pem=path.read_bytes(),
        public_path=str(path),
        **known,
    )


def segment(value: Any) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- Signed with the real key, and wrong ------------------------------------------------------------------------------
CLAIMS: dict[str, Callable[[int], dict[str, Any]]] = {
    "that expired": lambda now: {"exp": now - 1},
    "that expires this second": lambda now: {"exp": now},
    "whose exp is missing": lambda _: {"exp": None},
    "whose exp is text": lambda now: {"exp": str(now + 600)},
    "whose exp is huge": lambda _: {"exp": 10**30},
    "whose exp is next century": lambda now: {"exp": now + 100 * 365 * 86400},
    "whose exp is beyond a lifetime": lambda now: {"exp": now + 15 * 60 + 75},  # 60 are allowed; tests take time
    "whose exp is negative": lambda _: {"exp": -1},
    "whose exp is zero": lambda _: {"exp": 0},
    "whose exp is true": lambda _: {"exp": True},
    "whose exp is a fraction": lambda now: {"exp": now + 600.5},
    "whose exp is infinite": lambda _: {"exp": float("inf")},
    "whose nbf is ahead": lambda now: {"nbf": now + 300},
    "whose nbf is half a minute ahead": lambda now: {"nbf": now + 30},
    "whose nbf is text": lambda _: {"nbf": "0"},
    "whose iat is ahead": lambda now: {"iat": now + 300},
    "whose iat is missing": lambda _: {"iat": None},
    "whose iat is true": lambda _: {"iat": True},
    "whose aud is wrong": lambda _: {"aud": "somebody-else"},
    "whose aud is missing": lambda _: {"aud": None},
    "whose aud is a list": lambda _: {"aud": ["bookapi"]},
    "whose iss is wrong": lambda _: {"iss": "somebody-else"},
    "whose iss is missing": lambda _: {"iss": None},
    "whose iss is a list": lambda _: {"iss": ["bookapi"]},
    "of the refresh type": lambda _: {"token_type": "refresh"},
    "of no type": lambda _: {"token_type": None},
    "whose sub is missing": lambda _: {"sub": None},
    "whose sub is a number": lambda _: {"sub": 1},
    "whose sub is not a number": lambda _: {"sub": "anna"},
    "whose sub is huge": lambda _: {"sub": "9" * 30},
    "whose sub is in other digits": lambda _: {"sub": "١"},
    "whose sub is negative": lambda _: {"sub": "-1"},
    "whose jti is missing": lambda _: {"jti": None},
    "whose family is missing": lambda _: {"fam": None},
    "whose family is text": lambda _: {"fam": "1"},
    "whose family is huge": lambda _: {"fam": 2**70},
    "whose stamp is missing": lambda _: {"pwd": None},
    "whose stamp is of another password": lambda _: {"pwd": "0" * 16},
    "whose stamp is not ASCII": lambda _: {"pwd": "é" * 16},
    "of nobody": lambda _: {"sub": "999999"},
}


# --- Not signed as they should be -------------------------------------------------------------------------------------
def _tampered(mint: Mint) -> str:
    header, _, signature = mint.token().split(".")
    return f"{header}.{segment(mint.claims(sub='999'))}.{signature}"


def _with_header(mint: Mint, header: Any) -> str:
    """A good payload and its signature beside another header."""
    return f"{segment(header)}.{mint.token().split('.', 1)[1]}"


def _unsigned(alg: str) -> Callable[[Mint], str]:
    return lambda mint: f"{segment({'alg': alg, 'typ': 'JWT'})}.{segment(mint.claims())}."


def _hmac(mint: Mint, secret: bytes) -> str:
    """HS256 with any bytes; libraries refuse to use a PEM as a secret, and an attacker's does not."""
    header = {"alg": "HS256", "typ": "JWT", **({"kid": mint.kid} if mint.kid else {})}
    signed = f"{segment(header)}.{segment(mint.claims())}"
    return f"{signed}.{_base64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _respelled(token: str) -> str:
    """The token with the next last character, whose spare bits alone differ: the bytes of its signature are the same.

    32 bytes leave two bits of the 43rd character to spare, 256 bytes four; encoders leave them 0.
    """
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def _own_jwk(mint: Mint) -> str:
    """Signed by the attacker, with the attacker's public key in the header, as some libraries would believe."""
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA.public_key(), as_dict=True)
    return mint.token(key=OTHER_RSA, algorithm="RS256", jwk=jwk, jku="https://192.0.2.1/keys.json")


STRINGS: dict[str, Callable[[Mint], str]] = {
    "signed with another secret": lambda mint: mint.token(key="another key, of at least 32 bytes", algorithm="HS256"),
    "signed with another RSA key": lambda mint: mint.token(key=OTHER_RSA, algorithm="RS256"),
    "signed with another RSA key and no kid": lambda mint: replace(mint, kid=None).token(
        key=OTHER_RSA, algorithm="RS256"
    ),
    "signed with a key in its header": _own_jwk,
    "whose kid is a path": lambda mint: mint.token(key=OTHER_RSA, algorithm="RS256", kid="../../../dev/null"),
    "whose kid is a number": lambda mint: _with_header(mint, {"alg": mint.algorithm, "kid": 1}),
    "signed with an elliptic key": lambda mint: mint.token(key=OTHER_EC, algorithm="ES256"),
    "signed HS256 with blanks": lambda mint: _hmac(mint, b" " * 32),
    "signed HS256 with nothing": lambda mint: _hmac(mint, b""),
    "signed HS256 with the public key": lambda mint: _hmac(mint, mint.public_pem),
    "signed HS256 with the public key's lines": lambda mint: _hmac(mint, mint.public_pem.strip()),
    "signed HS256 with the public key's path": lambda mint: _hmac(mint, mint.public_path.encode()),
    "signed HS256 with the secret of the other mode": lambda mint: _hmac(mint, mint.secret.encode()),
    "whose payload was tampered with": _tampered,
    "whose alg is none": _unsigned("none"),
    "whose alg is None": _unsigned("None"),
    "whose alg is NONE": _unsigned("NONE"),
    "whose alg is nOnE": _unsigned("nOnE"),
    "whose alg is empty": _unsigned(""),
    "whose alg is none beside a signature": lambda mint: _with_header(mint, {"alg": "none"}),
    "whose alg is 384 with our key": lambda mint: mint.token(algorithm=f"{mint.algorithm[:2]}384"),
    "whose alg is 512 with our key": lambda mint: mint.token(algorithm=f"{mint.algorithm[:2]}512"),
    "whose alg is PS256 with an RSA key": lambda mint: mint.token(
        key=mint.key if mint.algorithm == "RS256" else OTHER_RSA, algorithm="PS256"
    ),
    "whose alg is in small letters": lambda mint: _with_header(mint, {"alg": mint.algorithm.lower()}),
    "whose alg is a list": lambda mint: _with_header(mint, {"alg": [mint.algorithm]}),
    "whose header is a list": lambda mint: _with_header(mint, [mint.algorithm]),
    "with a critical extension": lambda mint: mint.token(crit=["b64"], b64=True),
    "with a fourth part": lambda mint: mint.token() + ".AAAA",
    "with two parts": lambda mint: mint.token().rsplit(".", 1)[0],
    "without its signature": lambda mint: mint.token().rsplit(".", 1)[0] + ".",
    "with a broken signature": lambda mint: mint.token()[:-6] + "AAAAAA",
    "whose signature is spelled in another way": lambda mint: _respelled(mint.token()),
    "with padding": lambda mint: f"{mint.token()}=",
    "whose payload is a list": lambda mint: mint.token(b"[]"),
    "whose payload is not JSON": lambda mint: mint.token(b"\xff{"),
    "that is nested deeply": lambda mint: mint.token(b"[" * 2500),
    "that is empty": lambda _: "",
    "that is dots": lambda _: "..",
    "that is 20 kB of garbage": lambda _: "A" * 20_000,
    "that is 20 kB of dots": lambda _: "." * 20_000,
    "that is two tokens": lambda mint: f"{mint.token()} {mint.token()}",
    "that is not ASCII": lambda _: "tökén.ø.ß",
    "padded beyond the limit": lambda mint: mint.token(mint.claims(note="x" * 5000)),
}

#: What only the API can know: who has which password, and what its own claims must look like; it is strict with clocks.
API_ALONE = frozenset(
    {
        "whose stamp is missing",
        "whose stamp is of another password",
        "whose stamp is not ASCII",
        "of nobody",
        "whose family is missing",
        "whose family is text",
        "whose family is huge",
        "whose jti is missing",
        "whose nbf is half a minute ahead",
    }
)


def forged(mint: Mint, name: str) -> str:
    """The token that is wrong in this way: one of CLAIMS or STRINGS."""
    if name in CLAIMS:
        return mint.token(mint.claims(**CLAIMS[name](mint.now)))
    return STRINGS[name](mint)
