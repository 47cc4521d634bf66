"""Who may come in: tokens of every wrong kind, scopes, keys from a JWKS address, and the cache."""

import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from onsale.http.app import Application
from onsale.http.auth import Authenticator
from onsale.settings import Settings
from tests.http.calls import UNKNOWN_ID, orders_path, place, placed, problem_of, started
from tests.support import SECRET, MakeEvent, as_buyer, items, token, wait_until, with_scope

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

CLAIMS: dict[str, Any] = {"sub": "buyer-1", "scope": "buy admin ops", "exp": 2_000_000_000}
RSA_KEY = rsa.generate_private_key(65_537, 2048)


def signed(secret: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    """A token of `CLAIMS`; a claim changed to `None` is left out."""
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def handmade(header: dict[str, Any], claims: Any, signature: bytes = b"") -> str:
    """A token that no library would make."""

    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    texts = [json.dumps(value).encode() for value in (header, claims)]
    return ".".join(part(raw) for raw in (*texts, signature))


def _with_other_payload() -> str:
    """A good token whose middle was exchanged for one with more rights."""
    header, _, signature = signed(scope="buy").split(".")
    _, payload, _ = signed(scope="buy admin ops", sub="organiser").split(".")
    return f"{header}.{payload}.{signature}"


BAD_TOKENS: dict[str, str] = {
    "no header": "",
    "no scheme": token(),
    "another scheme": f"Basic {base64.b64encode(b'buyer-1:secret').decode()}",
    "no token": "Bearer",
    "an empty token": "Bearer ",
    "no JWT": "Bearer letmein",
    "three empty parts": "Bearer ..",
    "not ASCII": "Bearer é.é.é",
    "two tokens": f"Bearer {token()} {token()}",
    "expired": f"Bearer {token(lifetime_seconds=-1)}",
    "expired long ago": f"Bearer {signed(exp=1)}",
    "not valid yet": f"Bearer {signed(nbf=1_999_999_999)}",
    "wrong signature": f"Bearer {signed('another secret, as long as the right one')}",
    "no signature": f"Bearer {signed().rpartition('.')[0]}.",
    "another payload": f"Bearer {_with_other_payload()}",
    "alg none": f"Bearer {signed(None, 'none')}",
    "alg None": f"Bearer {handmade({'alg': 'None', 'typ': 'JWT'}, CLAIMS)}",
    "no alg": f"Bearer {handmade({'typ': 'JWT'}, CLAIMS)}",
    "HS512 with the right secret": f"Bearer {signed(SECRET * 2, 'HS512')}",
    "RS256": f"Bearer {signed(RSA_KEY, 'RS256')}",
    "no exp": f"Bearer {signed(exp=None)}",
    "exp as text": f"Bearer {signed(exp='never')}",
    "exp without end": f"Bearer {signed(exp=float('inf'))}",
    "exp that is no number": f"Bearer {signed(exp=float('nan'))}",
    "exp beyond a double": f"Bearer {signed(exp=10**400)}",
    "no sub": f"Bearer {signed(sub=None)}",
    "empty sub": f"Bearer {signed(sub='')}",
    "sub with a space": f"Bearer {signed(sub='buyer 1')}",
    "sub with a NUL": f"Bearer {signed(sub='buyer' + chr(0))}",
    "sub of 256 characters": f"Bearer {signed(sub='b' * 256)}",
    "scope as a list": f"Bearer {signed(scope=['buy'])}",
    "claims that are a list": f"Bearer {handmade({'alg': 'HS256'}, ['buy'])}",
    "huge": f"Bearer {signed(note='n' * 100_000)}",
    "huge and no JWT": f"Bearer {'x' * 1_000_000}",
}

# Every call that asks who is calling, with the one scope that opens it.
GUARDED: dict[tuple[str, str], str] = {
    ("POST", "/v1/events"): "admin",
    ("POST", "/v1/events/{event}/pause"): "admin",
    ("POST", "/v1/events/{event}/resume"): "admin",
    ("POST", "/v1/events/{event}/close"): "admin",
    ("PATCH", "/v1/events/{event}/tiers/t1"): "admin",
    ("POST", "/v1/events/{event}/orders/{order}/refund"): "admin",
    ("GET", "/v1/events/{event}/audit"): "ops",
    ("POST", "/v1/webhook-endpoints"): "admin",
    ("GET", "/v1/webhook-endpoints"): "admin",
    ("DELETE", "/v1/webhook-endpoints/{endpoint}"): "admin",
    ("POST", "/v1/webhook-endpoints/{endpoint}/enable"): "admin",
    ("GET", "/v1/webhook-deliveries"): "admin",
    ("POST", "/v1/webhook-deliveries/{delivery}/resend"): "admin",
    ("POST", "/v1/events/{event}/orders"): "buy",
    ("GET", "/v1/orders"): "buy",
    ("POST", "/v1/events/{event}/orders/{order}/payment"): "buy",
    ("DELETE", "/v1/events/{event}/orders/{order}"): "buy",
    ("GET", "/v1/events/{event}/orders/{order}"): "buy",
}
OPEN = [
    ("GET", "/v1/events"),
    ("GET", "/v1/events/{event}"),
    ("GET", "/v1/events/{event}/availability"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
]


@pytest.fixture
async def event_id(make_event: MakeEvent) -> str:
    """An event on sale."""
    return (await make_event()).id


def _path(template: str, event_id: str) -> str:
    return template.format(
        event=event_id, order=UNKNOWN_ID, endpoint=UNKNOWN_ID, delivery=UNKNOWN_ID
    )


# -- tokens


@pytest.mark.parametrize("authorization", BAD_TOKENS.values(), ids=BAD_TOKENS)
async def test_a_bad_token(client: httpx.AsyncClient, event_id: str, authorization: str) -> None:
    """Both ways in: the crowd's endpoint and FastAPI's."""
    headers = [(b"Idempotency-Key", b"k")]
    if authorization:
        headers.append((b"Authorization", authorization.encode()))
    ordering = await client.post(orders_path(event_id), json=items(), headers=headers)
    listing = await client.get("/v1/orders", headers=headers)
    for answer in (ordering, listing):
        problem_of(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_tokens_are_bad_for_what_they_say(client: httpx.AsyncClient) -> None:
    """The same token with nothing wrong comes in: or every refusal above would prove nothing."""
    for good in (f"Bearer {signed()}", f"bearer {signed()}", f"Bearer {signed(sub='b' * 255)}"):
        answer = await client.get("/v1/orders", headers={"Authorization": good})
        assert answer.status_code == 200


# -- scopes


@pytest.mark.parametrize(("call", "scope"), GUARDED.items(), ids=lambda value: str(value))
async def test_a_call_needs_its_scope(
    client: httpx.AsyncClient, event_id: str, call: tuple[str, str], scope: str
) -> None:
    method, path = call[0], _path(call[1], event_id)
    body: dict[str, Any] | None = None if method == "GET" else {}
    problem_of(await client.request(method, path, json=body), 401, "unauthenticated")
    for wrong in ({"buy", "admin", "ops"} - {scope}) | {"", "buyadmin", scope.upper()}:
        if wrong == "admin" and method == "GET" and path.endswith(UNKNOWN_ID):
            continue  # admins may look at any order
        answer = await client.request(method, path, json=body, headers=with_scope(wrong))
        problem_of(answer, 403, "forbidden")
    right = await client.request(method, path, json=body, headers=with_scope(scope))
    assert right.status_code not in (401, 403)


@pytest.mark.parametrize(("method", "path"), OPEN)
async def test_a_call_that_anybody_may_make(
    client: httpx.AsyncClient, event_id: str, method: str, path: str
) -> None:
    """A token is not asked for, and a bad one is not held against anybody."""
    path = _path(path, event_id)
    for headers in ({}, {"Authorization": "Bearer expired"}):
        assert (await client.request(method, path, headers=headers)).status_code == 200


async def test_every_call_is_in_one_of_the_lists(app: Application) -> None:
    """A route that somebody adds is guarded on purpose or open on purpose."""
    names = {name: f"{{{name}_id}}" for name in ("event", "order", "endpoint", "delivery")}
    listed = {
        (method, path.format(**names).replace("/t1", "/{tier_id}"))
        for method, path in (*GUARDED, *OPEN)
    }
    listed.add(("GET", "/v1/events/{event_id}/availability/stream"))
    served = {
        (method.upper(), path)
        for path, operations in app.api.openapi()["paths"].items()
        for method in operations
    }
    assert served == listed - {("GET", "/openapi.json")}


# -- the memory of verified tokens


async def test_a_token_is_not_remembered_beyond_its_end(
    client: httpx.AsyncClient, app: Application, make_event: MakeEvent
) -> None:
    """Seen red with the comparison taken out of `Authenticator.remembered`."""
    event = await make_event()
    authenticator: Authenticator = app.api.state.authenticator
    headers = {**as_buyer(), "Authorization": f"Bearer {token('brief', lifetime_seconds=3)}"}
    await placed(client, event.id, headers=headers)
    authorization = headers["Authorization"].encode()
    assert authenticator.remembered(authorization) is not None

    async def shut_out() -> bool:
        return (await client.get("/v1/orders", headers=headers)).status_code == 401

    await wait_until(shut_out)
    problem_of(await place(client, event.id, headers=headers), 401, "unauthenticated")
    assert authenticator.remembered(authorization) is None


async def test_the_memory_is_bounded(settings: Settings) -> None:
    authenticator = Authenticator(settings.model_copy(update={"auth_cache_size_max": 2}))
    headers = [f"Bearer {token(f'buyer-{number}')}".encode() for number in range(3)]
    for header in headers:
        await authenticator.principal(header)
    known = [authenticator.remembered(header) is not None for header in headers]
    assert known == [False, True, True]


async def test_a_refused_token_is_not_remembered(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await client.get(
            "/v1/orders", headers={"Authorization": f"Bearer {signed('x' * 40)}"}
        )
        problem_of(answer, 401, "unauthenticated")


# -- keys from an address


@dataclass
class KeyServer:
    """A real HTTP server that answers with a JSON Web Key Set; `answers` counts how often."""

    body: bytes = b'{"keys":[]}'
    answers: int = 0
    port: int = 0
    _server: ThreadingHTTPServer | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    def publish(self, **keys: PrivateKey) -> None:
        """Publish the public halves of these keys, by key id, and nothing else."""
        self.body = json.dumps({"keys": [_as_jwk(kid, key) for kid, key in keys.items()]}).encode()

    def start(self) -> None:
        """Listen on a free port."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answers += 1
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(owner.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be down: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _algorithm(key: PrivateKey) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "EdDSA"


def _as_jwk(kid: str, key: PrivateKey) -> dict[str, Any]:
    algorithm: Any = get_default_algorithms()[_algorithm(key)]
    return {
        **algorithm.to_jwk(key.public_key(), as_dict=True),
        "kid": kid,
        "use": "sig",
        "alg": _algorithm(key),
    }


def signed_by(key: PrivateKey, kid: str | None, **changed: Any) -> dict[str, str]:
    """The header of a request whose token is signed with that key."""
    made = jwt.encode(
        CLAIMS | changed, key, _algorithm(key), headers=None if kid is None else {"kid": kid}
    )
    return {"Authorization": f"Bearer {made}"}


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    """A key server that has one RSA key, `first`."""
    server = KeyServer()
    server.publish(first=RSA_KEY)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def by_keys(settings: Settings, keys: KeyServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that checks tokens with the server's keys."""
    changed = settings.model_copy(update={"auth_secret": None, "auth_jwks_url": keys.url})
    async with started(changed) as (_, client):
        yield client


@pytest.fixture
async def forgetful(settings: Settings, keys: KeyServer) -> AsyncIterator[httpx.AsyncClient]:
    """As `by_keys`, of a service that reads the keys again after a moment."""
    changed = settings.model_copy(
        update={
            "auth_secret": None,
            "auth_jwks_url": keys.url,
            "auth_jwks_cache_seconds": 0.1,
        }
    )
    async with started(changed) as (_, client):
        yield client


async def _comes_in(client: httpx.AsyncClient, headers: dict[str, str]) -> bool:
    answer = await client.get("/v1/orders", headers=headers)
    if answer.status_code != 200:
        problem_of(answer, 401, "unauthenticated")
    return answer.status_code == 200


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: RSA_KEY,
        lambda: ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["RS256", "ES256", "EdDSA"],
)
async def test_keys_of_every_kind(
    by_keys: httpx.AsyncClient,
    keys: KeyServer,
    make_event: MakeEvent,
    make_key: Callable[[], PrivateKey],
) -> None:
    key = make_key()
    keys.publish(theirs=key)
    headers = {"Idempotency-Key": "k", **signed_by(key, "theirs", sub="keyed-1")}
    order = await placed(by_keys, (await make_event()).id, headers=headers)
    assert order["buyer_id"] == "keyed-1"


async def test_keys_are_fetched_once(by_keys: httpx.AsyncClient, keys: KeyServer) -> None:
    for number in range(5):
        assert await _comes_in(by_keys, signed_by(RSA_KEY, "first", sub=f"buyer-{number}"))
    assert keys.answers == 1


async def test_keys_change(forgetful: httpx.AsyncClient, keys: KeyServer) -> None:
    """The new key is known when the set is read again, and tokens of the old one end with it."""
    second = rsa.generate_private_key(65_537, 2048)
    assert await _comes_in(forgetful, signed_by(RSA_KEY, "first"))
    assert not await _comes_in(forgetful, signed_by(second, "second"))
    keys.publish(second=second)
    await wait_until(lambda: _comes_in(forgetful, signed_by(second, "second")))
    assert not await _comes_in(forgetful, signed_by(RSA_KEY, "first", sub="late"))


async def test_tokens_that_no_key_signed(by_keys: httpx.AsyncClient) -> None:
    public_pem = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stranger = rsa.generate_private_key(65_537, 2048)
    # PyJWT refuses to take a public key for a secret, so the attacker's token is made by hand.
    header = {"alg": "HS256", "kid": "first"}
    unsigned = handmade(header, CLAIMS).rpartition(".")[0].encode()
    mac = get_default_algorithms()["HS256"]
    signature = mac.sign(unsigned, public_pem)
    for attempt in (
        signed_by(stranger, "first"),
        signed_by(RSA_KEY, "unknown"),
        signed_by(RSA_KEY, None),
        signed_by(RSA_KEY, "first", exp=1),
        {"Authorization": f"Bearer {handmade(header, CLAIMS, signature)}"},
        {"Authorization": f"Bearer {handmade({'alg': 'none', 'kid': 'first'}, CLAIMS)}"},
        {"Authorization": f"Bearer {signed()}"},
        {"Authorization": "Bearer a.b.c"},
    ):
        assert not await _comes_in(by_keys, attempt)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[{"kid":"first"}]}', b"\xff"]
)
async def test_an_address_that_has_no_keys(
    by_keys: httpx.AsyncClient, keys: KeyServer, body: bytes
) -> None:
    keys.body = body
    assert not await _comes_in(by_keys, signed_by(RSA_KEY, "first"))


async def test_a_key_server_that_is_down(forgetful: httpx.AsyncClient, keys: KeyServer) -> None:
    """Nobody new can be told from an impostor, and may try again; who was verified before comes
    in; then all do.
    """
    known = signed_by(RSA_KEY, "first", sub="early")
    assert await _comes_in(forgetful, known)
    keys.stop()
    numbers = count()

    async def a_new_one_is_told_to_wait() -> bool:
        new = signed_by(RSA_KEY, "first", sub=f"new-{next(numbers)}")
        answer = await forgetful.get("/v1/orders", headers=new)
        if answer.status_code != 200:
            problem_of(answer, 503, "overloaded")
        return answer.status_code == 503

    await wait_until(a_new_one_is_told_to_wait)
    assert await _comes_in(forgetful, known)
    keys.start()
    assert await _comes_in(forgetful, signed_by(RSA_KEY, "first", sub="late"))


async def test_a_key_server_that_was_never_up(settings: Settings) -> None:
    keys = KeyServer()
    keys.start()
    keys.stop()
    changed = settings.model_copy(update={"auth_secret": None, "auth_jwks_url": keys.url})
    async with started(changed) as (_, client):
        answer = await client.get("/v1/orders", headers=signed_by(RSA_KEY, "first"))
        problem_of(answer, 503, "overloaded")


async def test_invented_key_ids_do_not_ask_the_key_server_each(
    by_keys: httpx.AsyncClient, keys: KeyServer
) -> None:
    """Anybody can invent one; a fetch for each would lead the crowd to the key server."""
    assert await _comes_in(by_keys, signed_by(RSA_KEY, "first"))
    for number in range(20):
        assert not await _comes_in(by_keys, signed_by(RSA_KEY, f"invented-{number}"))
    assert keys.answers <= 5


def test_the_claims_have_not_ended() -> None:
    """The day these tests stop meaning anything they fail here."""
    assert time.time() < CLAIMS["exp"]
