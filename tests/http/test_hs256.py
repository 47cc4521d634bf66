"""Our HS256 check against PyJWT: it accepts nothing that PyJWT does not, and the same claims."""

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onsale.http.hs256 import BadToken, Hs256Verifier
from tests.support import SECRET

NOW = int(datetime.now(UTC).timestamp())
SOON, LONG_AGO = NOW + 3_600, NOW - 3_600


def _segment(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _sign(header: bytes, payload: bytes, secret: str = SECRET) -> bytes:
    signed = header + b"." + payload
    return signed + b"." + _segment(hmac.digest(secret.encode(), signed, "sha256"))


def _token(claims: Any, header: Any = None, secret: str = SECRET) -> bytes:
    fields = {"alg": "HS256", "typ": "JWT"} if header is None else header
    return _sign(
        _segment(json.dumps(fields).encode()), _segment(json.dumps(claims).encode()), secret
    )


def _ours(token: bytes) -> dict[str, Any] | None:
    try:
        return Hs256Verifier(SECRET).claims(token)
    except BadToken:
        return None


def _pyjwt(token: bytes) -> dict[str, Any] | None:
    try:
        return jwt.decode(
            token, SECRET, algorithms=["HS256"], options={"require": ["exp"], "verify_aud": False}
        )
    except jwt.PyJWTError:
        return None


GOOD = _token({"sub": "buyer-1", "scope": "buy", "exp": SOON})

numbers: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([SOON, LONG_AGO, NOW + 60.5, 0, -1, 2**70, True, None, "soon", str(SOON), []]),
    st.integers(),
    st.floats(),
)
claims_of_any_kind = st.one_of(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "scope", "x"]), st.one_of(numbers, st.text())
    ),
    st.lists(st.integers()),
    st.text(),
    st.none(),
)
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "HS384", "none", "RS256", "hs256", None])},
    optional={
        "typ": st.just("JWT"),
        "crit": st.just(["exp"]),
        "b64": st.booleans(),
        "kid": st.just("1"),
    },
)


@given(claims=claims_of_any_kind, header=headers)
@example(claims={"exp": SOON, "iat": LONG_AGO}, header={"alg": "HS256"})
@example(claims={"exp": float("nan")}, header={"alg": "HS256"})
@example(claims={"exp": float("inf")}, header={"alg": "HS256"})
def test_what_we_accept_pyjwt_accepts_with_the_same_claims(claims: Any, header: Any) -> None:
    token = _token(claims, header)
    found = _ours(token)
    if found is not None:
        assert found == _pyjwt(token)


@given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_a_token_with_one_byte_changed_is_refused(at: int, byte: int) -> None:
    changed = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    assert (_ours(changed) is not None) == (changed == GOOD)


@given(st.binary(max_size=60))
def test_no_bytes_at_all_are_more_than_refused(token: bytes) -> None:
    assert _ours(token) is None


@pytest.mark.parametrize(
    "token",
    [
        _token({"sub": "buyer-1", "exp": SOON}, secret="another secret of the same length, nearly"),
        _token({"sub": "buyer-1", "exp": LONG_AGO}),
        _token({"sub": "buyer-1"}),
        _token({"sub": "buyer-1", "exp": SOON, "nbf": SOON}),
        _token({"sub": "buyer-1", "exp": SOON, "iat": SOON}),
        _token({"sub": "buyer-1", "exp": SOON}, {"alg": "none"}),
        _token({"sub": "buyer-1", "exp": SOON}, {"alg": "HS256", "crit": ["exp"]}),
        _sign(_segment(b'{"alg":"HS256"}'), _segment(b'{"exp":1') + b"!"),
        GOOD + b"=",
        GOOD.replace(b".", b"..", 1),
        GOOD.rpartition(b".")[0],
        GOOD.rpartition(b".")[0] + b".",
    ],
)
def test_bad_tokens(token: bytes) -> None:
    assert _ours(token) is None


@pytest.mark.parametrize("length_bytes", [1, 63, 64, 65, 200])
def test_secrets_of_any_length(length_bytes: int) -> None:
    """One that is longer than a block of the hash is hashed first. Seen red without that."""
    secret = "s" * length_bytes
    token = _token({"sub": "buyer-1", "exp": SOON}, secret=secret)
    assert Hs256Verifier(secret).claims(token)["sub"] == "buyer-1"
    with pytest.raises(BadToken):
        Hs256Verifier(secret + "s").claims(token)


def test_a_good_header_does_not_vouch_for_another() -> None:
    verifier = Hs256Verifier(SECRET)
    verifier.claims(GOOD)
    with pytest.raises(BadToken):
        verifier.claims(_token({"sub": "buyer-1", "exp": SOON}, {"alg": "HS384"}))


def test_tokens_of_pyjwt_are_accepted() -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    token = jwt.encode({"sub": "b", "exp": expires, "iat": LONG_AGO}, SECRET, algorithm="HS256")
    assert _ours(token.encode()) == _pyjwt(token.encode())
