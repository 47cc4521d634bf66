// What an answer means. Every answer to a request about an order is counted under one outcome;
// an answer that the contract does not allow is `unexpected`, and one is enough to fail a run.

import { Counter, Gauge, Rate } from 'k6/metrics';

// code of the problem -> the status it has to come with, and what it is called here
const PROBLEMS = {
  sold_out: { status: 409, outcome: 'sold_out' },
  buyer_limit_reached: { status: 409, outcome: 'limit' },
  sale_not_open: { status: 409, outcome: 'not_open' },
  sale_paused: { status: 409, outcome: 'paused' },
  sale_closed: { status: 409, outcome: 'closed' },
  order_expired: { status: 409, outcome: 'expired' },
  order_not_releasable: { status: 409, outcome: 'not_releasable' },
  order_not_payable: { status: 409, outcome: 'not_payable' },
  request_in_progress: { status: 409, outcome: 'in_progress' },
  payment_declined: { status: 402, outcome: 'declined' },
  rate_limited: { status: 429, outcome: 'rate_limited' },
  overloaded: { status: 503, outcome: 'overloaded' },
  ledger_unavailable: { status: 503, outcome: 'ledger_unavailable' },
};

// `held`, `confirmed`, `released`: it went well. `replayed`: the same order, once more.
// `no_answer`: timed out or cut off. `unexpected`: not in the contract.
const GOOD = ['held', 'confirmed', 'released', 'replayed'];
const OUTCOMES = [...GOOD, ...Object.values(PROBLEMS).map((p) => p.outcome), 'no_answer', 'unexpected'];
const counters = Object.fromEntries(OUTCOMES.map((name) => [name, new Counter(`outcome_${name}`)]));

// Asked again with the same key, these may turn into an order.
const PASSING = new Set(['in_progress', 'rate_limited', 'overloaded', 'ledger_unavailable', 'no_answer']);

export const buyers = new Counter('buyers');
export const buyersServed = new Rate('buyers_served');
// Tickets that buyers were left with when they went: over the stock, the service oversold.
export const ticketsTaken = new Counter('tickets_taken');
// Buyers who pressed more than once at the same time, and those who got different answers to it.
export const duplicatePresses = new Counter('duplicate_presses');
export const duplicateOrders = new Counter('duplicate_orders');

// 1 under the tag `phase`, while that phase of the run lasts.
export const phaseGauge = new Gauge('phase');

let complained = false;

function complain(response) {
  if (complained) return; // once per VU: a thousand equal lines help nobody
  complained = true;
  const body = String(response.body).slice(0, 200);
  console.warn(`unexpected: ${response.request.method} ${response.url} -> ${response.status} ${body}`);
}

// The answer's JSON, or null where it has none.
export function json(response) {
  try {
    return response.json();
  } catch {
    return null;
  }
}

export function retryAfterSeconds(response) {
  return Number(response.headers['Retry-After']) || 0;
}

// Counts the answer and returns its outcome. `good` is what a success would be called.
export function count(response, good) {
  const outcome = good || refusal(response);
  if (outcome === 'unexpected') complain(response);
  counters[outcome].add(1);
  return outcome;
}

function refusal(response) {
  if (response.status === 0) return 'no_answer';
  const isProblem = (response.headers['Content-Type'] || '').startsWith('application/problem+json');
  const body = isProblem ? json(response) : null;
  const problem = body && PROBLEMS[body.code];
  return problem && problem.status === response.status ? problem.outcome : 'unexpected';
}

export function isPassing(outcome) {
  return PASSING.has(outcome);
}
