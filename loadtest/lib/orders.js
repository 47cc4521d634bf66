// The requests of a buyer. Each is tagged with the template of its route: a tag with ids in it
// would be a new time series per order.

import { check } from 'k6';
import http from 'k6/http';

import { token } from './auth.js';
import { config } from './config.js';
import { count, duplicateOrders, duplicatePresses, json, retryAfterSeconds } from './outcomes.js';

export const PLACE = 'POST /v1/events/{event_id}/orders';
export const PLACE_ABANDONED = `${PLACE} (abandoned)`;
export const PAY = 'POST /v1/events/{event_id}/orders/{order_id}/payment';
export const RELEASE = 'DELETE /v1/events/{event_id}/orders/{order_id}';

export const ORDERS_URL = `${config.baseUrl}/v1/events/${config.eventId}/orders`;

// A refusal that the contract foresees is an answer; `http_req_failed` is for the others.
export const ANSWERS = [{ min: 200, max: 299 }, 304, 402, 409];
http.setResponseCallback(http.expectedStatuses(...ANSWERS));

// One person who wants one ticket. `orders` are the distinct orders this buyer was given.
export function newBuyer(n) {
  const id = `buyer-${config.runId}-${n}`;
  return { id, n, token: token(id), tickets: 0, orders: [] };
}

// What the buyer asks for: one ticket of a tier, under one key however often it is pressed.
export function wish(buyer, tierId) {
  return { tierId, key: `${buyer.id}-${tierId}`, body: JSON.stringify({ items: [{ tier_id: tierId, quantity: 1 }] }) };
}

export function params(name, buyerToken, headers = {}, timeoutMs = config.requestTimeoutSeconds * 1000) {
  return {
    headers: { Authorization: `Bearer ${buyerToken}`, 'Content-Type': 'application/json', ...headers },
    tags: { name },
    timeout: timeoutMs,
  };
}

function placing(buyer, wanted) {
  return ['POST', ORDERS_URL, wanted.body, params(PLACE, buyer.token, { 'Idempotency-Key': wanted.key })];
}

// Presses once. Returns {outcome, order, wanted, retryAfterSeconds}; `order` is null if there is none.
export function press(buyer, wanted) {
  const [method, url, body, options] = placing(buyer, wanted);
  return judge(buyer, wanted, http.request(method, url, body, options));
}

// Presses `times` at the same moment, as an impatient thumb or a second tab does; every answer has
// to agree on what the buyer got. Returns one result as of `press`: the order if there is one.
export function pressTogether(buyer, wanted, times) {
  const requests = Array.from({ length: times }, () => placing(buyer, wanted));
  const results = http.batch(requests).map((response) => judge(buyer, wanted, response));
  duplicatePresses.add(1);
  duplicateOrders.add(agree(results) ? 0 : 1);
  return results.find((result) => result.order) || results[0];
}

// Presses and does not wait: the order may or may not be made, and nobody is told.
export function pressAndLeave(buyer, wanted) {
  const options = params(PLACE_ABANDONED, buyer.token, { 'Idempotency-Key': wanted.key }, config.impatientTimeoutMs);
  // Not answering within a few milliseconds is no failure of the service.
  options.responseCallback = null;
  return judge(buyer, wanted, http.post(ORDERS_URL, wanted.body, options));
}

// One order id among all the answers, and no `sold_out` beside it.
function agree(results) {
  const ids = new Set(results.filter((result) => result.order).map((result) => result.order.id));
  return ids.size === 0 || (ids.size === 1 && results.every((result) => result.order || result.outcome !== 'sold_out'));
}

function judge(buyer, wanted, response) {
  const order = response.status === 201 ? json(response) : null;
  if (order === null) {
    return { outcome: count(response), order, wanted, retryAfterSeconds: retryAfterSeconds(response) };
  }
  const isNew = !buyer.orders.includes(order.id);
  const isRight = isAsAsked(buyer, wanted, order);
  check(order, { 'the order is what the buyer asked for': () => isRight });
  if (isNew && isRight) {
    buyer.orders.push(order.id);
    buyer.tickets += 1;
  }
  const good = isNew ? order.status : 'replayed';
  return { outcome: count(response, isRight ? good : 'unexpected'), order, wanted, retryAfterSeconds: 0 };
}

function isAsAsked(buyer, wanted, order) {
  return (
    Boolean(order.id) &&
    order.buyer_id === buyer.id &&
    order.event_id === config.eventId &&
    (order.status === 'held' || order.status === 'confirmed') &&
    order.items.length === 1 &&
    order.items[0].tier_id === wanted.tierId &&
    order.items[0].quantity === 1
  );
}

// Pays a held order. Returns the outcome.
export function pay(buyer, order, method) {
  const response = http.post(`${ORDERS_URL}/${order.id}/payment`, JSON.stringify({ method }), params(PAY, buyer.token));
  const paid = response.status === 200 ? json(response) : null;
  if (paid === null) return count(response);
  const isRight = check(paid, { 'the order paid is confirmed': () => paid.id === order.id && paid.status === 'confirmed' });
  return count(response, isRight ? 'confirmed' : 'unexpected');
}

// Gives a held order back. Returns the outcome.
export function release(buyer, order) {
  const response = http.del(`${ORDERS_URL}/${order.id}`, null, params(RELEASE, buyer.token));
  if (response.status !== 204) return count(response);
  buyer.tickets -= 1;
  return count(response, 'released');
}
