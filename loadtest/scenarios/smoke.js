// A few of everything, each answer looked at: run it first. What it meets is the contract; load
// comes in the other scenarios.

import { check } from 'k6';
import http from 'k6/http';

import { token } from '../lib/auth.js';
import { config } from '../lib/config.js';
import { crowd, steady } from '../lib/crowd.js';
import { ORDERS_URL, params, pay, PLACE, press, release, wish } from '../lib/orders.js';
import { json } from '../lib/outcomes.js';
import { common } from '../lib/summary.js';
import { soldExactly, thresholds } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

export const options = {
  ...common,
  scenarios: { smoke: steady(5) },
  thresholds: thresholds(soldExactly),
};

const EVENTS_URL = `${config.baseUrl}/v1/events`;
const EVENT_URL = `${EVENTS_URL}/${config.eventId}`;

export default crowd((buyer) => {
  const wanted = wish(buyer, config.tierIds[buyer.n % config.tierIds.length]);
  const parts = [looksAround(), isRefusedRightly(buyer, wanted)];
  const { order } = press(buyer, wanted);
  if (order === null) return false;
  parts.push(isTheSameTwice(buyer, wanted, order), isSeenByItsBuyerOnly(buyer, order), ends(buyer, order));
  return parts.every(Boolean);
});

// Asks and checks status, problem code and whatever else `looks(response)` wants.
function ask(name, method, url, { bearer = '', body = null, headers = {}, status = 200, code = null, looks = null }) {
  const options = params(name, bearer, headers);
  if (!bearer) delete options.headers.Authorization;
  options.responseCallback = http.expectedStatuses(status);
  const response = http.request(method, url, body, options);
  const label = code ? `${name}: ${status} ${code}` : `${name}: ${status}`;
  const isRight = check(response, {
    [label]: (r) => r.status === status && (code === null || (json(r) || {}).code === code),
  });
  return isRight && (looks === null || check(response, { [`${name}: body`]: looks }));
}

function looksAround() {
  let etag = '';
  return [
    ask('GET /healthz', 'GET', `${config.baseUrl}/healthz`, {}),
    ask('GET /v1/events', 'GET', EVENTS_URL, { looks: (r) => Array.isArray(r.json('data')) }),
    ask('GET /v1/events/{event_id}', 'GET', EVENT_URL, {
      looks: (r) => r.json('id') === config.eventId && config.tierIds.every((id) => r.json('tiers.#.id').includes(id)),
    }),
    ask('GET /v1/events/{event_id}/availability', 'GET', `${EVENT_URL}/availability`, {
      looks: (r) => {
        etag = r.headers.Etag;
        return r.json('tiers').every((tier) => tier.available >= 0 && tier.available <= tier.capacity);
      },
    }),
    // Between the two somebody may have bought: then it is 200 with another ETag.
    revalidates(etag),
  ].every(Boolean);
}

function revalidates(etag) {
  const name = 'GET /v1/events/{event_id}/availability';
  const options = params(name, '', { 'If-None-Match': etag });
  delete options.headers.Authorization;
  const response = http.get(`${EVENT_URL}/availability`, options);
  return check(response, {
    [`${name}: 304, or a new ETag`]: (r) => r.status === 304 || (r.status === 200 && r.headers.Etag !== etag),
  });
}

function isRefusedRightly(buyer, wanted) {
  const place = (expected) => ask(PLACE, 'POST', ORDERS_URL, { bearer: buyer.token, body: wanted.body, ...expected });
  const headers = { 'Idempotency-Key': `${wanted.key}-refused` };
  const nothing = JSON.stringify({ items: [{ tier_id: wanted.tierId, quantity: 0 }] });
  return [
    place({ status: 400, code: 'idempotency_key_missing' }),
    place({ headers, bearer: '', status: 401, code: 'unauthenticated' }),
    place({ headers, bearer: token(buyer.id, 'ops'), status: 403, code: 'forbidden' }),
    place({ headers, body: nothing, status: 422, code: 'invalid_request' }),
    place({ headers, body: 'not json', status: 422, code: 'invalid_request' }),
  ].every(Boolean);
}

function isTheSameTwice(buyer, wanted, order) {
  const more = JSON.stringify({ items: [{ tier_id: wanted.tierId, quantity: 2 }] });
  const headers = { 'Idempotency-Key': wanted.key };
  return [
    ask(PLACE, 'POST', ORDERS_URL, {
      bearer: buyer.token,
      headers,
      body: wanted.body,
      status: 201,
      looks: (r) => r.json('id') === order.id && r.headers['Idempotent-Replayed'] === 'true',
    }),
    ask(PLACE, 'POST', ORDERS_URL, {
      bearer: buyer.token,
      headers,
      body: more,
      status: 422,
      code: 'idempotency_key_reused',
    }),
  ].every(Boolean);
}

function isSeenByItsBuyerOnly(buyer, order) {
  const name = 'GET /v1/events/{event_id}/orders/{order_id}';
  const url = `${ORDERS_URL}/${order.id}`;
  return [
    ask(name, 'GET', url, { bearer: buyer.token, looks: (r) => r.json('id') === order.id }),
    ask(name, 'GET', url, { bearer: token(`${buyer.id}-stranger`), status: 404, code: 'not_found' }),
    ask('GET /v1/orders', 'GET', `${config.baseUrl}/v1/orders`, {
      bearer: buyer.token,
      looks: (r) => r.json('data').length === 1 && r.json('data.0.id') === order.id,
    }),
  ].every(Boolean);
}

// Held: one in three is given back, the others are paid after a declined card. Confirmed: one in
// three is refunded.
function ends(buyer, order) {
  const givesBack = buyer.n % 3 === 2;
  if (order.status === 'held' && givesBack) return release(buyer, order) === 'released';
  if (order.status === 'held') return pay(buyer, order, 'declined') === 'declined' && pay(buyer, order, 'ok') === 'confirmed';
  return givesBack ? isRefunded(buyer, order) : true;
}

function isRefunded(buyer, order) {
  const isRight = ask('POST /v1/events/{event_id}/orders/{order_id}/refund', 'POST', `${ORDERS_URL}/${order.id}/refund`, {
    bearer: token('smoke-admin', 'admin'),
    looks: (r) => r.json('status') === 'refunded',
  });
  if (isRight) buyer.tickets -= 1;
  return isRight;
}
