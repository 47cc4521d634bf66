"""Who is asking: JWTs, HS256 with a shared secret or asymmetric keys from a JWKS address.

Verified tokens are remembered until they expire, so that pressing again costs a dictionary.
"""

import asyncio
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from time import time
from typing import Any, NamedTuple

import jwt

from onsale.domain.ids import BUYER_ID
from onsale.http.hs256 import Hs256Verifier
from onsale.http.problems import Forbidden, KeysUnavailable, Unauthenticated
from onsale.settings import Settings

# No token of ours comes near; a longer one is not worth verifying.
_TOKEN_LENGTH_MAX = 4_096
_ASYMMETRIC = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "EdDSA",
]


class Scope(StrEnum):
    """What a token may allow."""

    BUY = "buy"
    ADMIN = "admin"
    OPS = "ops"


class Principal(NamedTuple):
    """Who a token speaks for, until when (seconds since 1970), and what it allows."""

    subject: str
    scopes: frozenset[str]
    expires_at_seconds: float

    def require(self, scope: Scope) -> "Principal":
        """Itself. Raises `Forbidden`."""
        if scope not in self.scopes:
            raise Forbidden(f"Your token needs the scope {scope!r}.")
        return self


class Authenticator:
    """Checks `Authorization` headers by one of the two ways of the settings."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.auth_secret
        self._hs256 = Hs256Verifier(secret.get_secret_value()) if secret else None
        self._keys = (
            jwt.PyJWKClient(
                settings.auth_jwks_url,
                lifespan=settings.auth_jwks_cache_seconds,
                timeout=settings.auth_jwks_timeout_seconds,
            )
            if settings.auth_jwks_url and not secret
            else None
        )
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._verified_max = settings.auth_cache_size_max

    def remembered(self, authorization: bytes) -> Principal | None:
        """The principal of a header that was verified before and has not expired."""
        principal = self._verified.get(authorization)
        return principal if principal and principal.expires_at_seconds > time() else None

    def known(self, authorization: bytes | None) -> Principal | None:
        """Whom the header speaks for, if that is known without asking anybody.

        Raises `Unauthenticated`.
        """
        if authorization is None:
            raise Unauthenticated
        principal = self.remembered(authorization)
        if principal is None and self._hs256 is not None:
            try:
                principal = _principal(self._hs256.claims(_token_in(authorization)))
            except _UNREADABLE as error:
                raise Unauthenticated from error
            self._remember(authorization, principal)
        return principal

    async def principal(self, authorization: bytes | None) -> Principal:
        """Whom the header speaks for. Raises `Unauthenticated`."""
        principal = self.known(authorization)
        if principal is None:
            assert authorization is not None
            try:
                principal = _principal(await self._claims_by_jwks(_token_in(authorization)))
            except _UNREADABLE as error:
                raise Unauthenticated from error
            self._remember(authorization, principal)
        return principal

    def _remember(self, authorization: bytes, principal: Principal) -> None:
        self._verified[authorization] = principal
        if len(self._verified) > self._verified_max:
            self._verified.popitem(last=False)

    async def _claims_by_jwks(self, token: bytes) -> dict[str, Any]:
        if self._keys is None:
            raise Unauthenticated
        text = token.decode("ascii")
        try:
            # May fetch keys: off the event loop.
            key = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, text)
        except jwt.PyJWKClientConnectionError as error:
            raise KeysUnavailable from error
        # The key says which algorithm is its own, whatever the token would like.
        if key.algorithm_name not in _ASYMMETRIC:
            raise Unauthenticated
        options: Any = {"require": ["exp", "sub"], "verify_aud": False}
        return jwt.decode(text, key, algorithms=[key.algorithm_name], options=options)


# What is wrong with a token is told to nobody.
_UNREADABLE = (jwt.PyJWTError, ValueError, OverflowError)


def _token_in(authorization: bytes) -> bytes:
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token or len(token) > _TOKEN_LENGTH_MAX:
        raise Unauthenticated
    return token.strip()


def _principal(claims: dict[str, Any]) -> Principal:
    subject, scope = claims.get("sub"), claims.get("scope", "")
    if not isinstance(subject, str) or not isinstance(scope, str):
        raise Unauthenticated
    if not BUYER_ID.fullmatch(subject):
        raise Unauthenticated
    return Principal(subject, _scopes(scope), float(claims["exp"]))


# Issuers give few different ones, and everybody in a crowd has the same.
@lru_cache(maxsize=64)
def _scopes(scope: str) -> frozenset[str]:
    return frozenset(scope.split())


def make_token(secret: str, subject: str, scope: str, lifetime: timedelta) -> str:
    """An HS256 token as this service accepts it."""
    claims = {"sub": subject, "scope": scope, "exp": datetime.now(UTC) + lifetime}
    return jwt.encode(claims, secret, algorithm="HS256")
