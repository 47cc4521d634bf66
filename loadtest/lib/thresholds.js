// When a run fails. Three kinds in every scenario: was the crowd served, how fast, and was it
// right. A latency threshold alone once passed a run in which 98.79 % of the requests failed.

import { config } from './config.js';
import { PLACE } from './orders.js';

const successRateMin = config.successRateMin;
const failureRateMax = Number((1 - successRateMin).toFixed(6));

const PLACE_LATENCY = `http_req_duration{name:${PLACE}}`;
export const latency = [`p(95)<${config.latencyP95MsMax}`, `p(99)<${config.latencyP99MsMax}`];

// Right: whatever the load, without exception.
const right = {
  checks: ['rate==1'],
  outcome_unexpected: ['count==0'],
  duplicate_orders: ['count==0'],
  tickets_taken: [`count<=${config.stock}`],
};

const served = {
  // Counted when a buyer leaves: a run without requests, or one whose script throws, is no success.
  buyers: [`count==${config.buyers}`],
  buyers_served: [`rate>=${successRateMin}`],
  http_req_failed: [`rate<=${failureRateMax}`],
  // Otherwise the generator was the limit, and the figures say nothing about the service.
  dropped_iterations: ['count==0'],
};

// The crowd buys and keeps: as many tickets go as there are, or as there are buyers.
export const soldExactly =
  config.buyers > config.stock
    ? { tickets_taken: [`count==${config.stock}`] }
    : { outcome_sold_out: ['count==0'] };

export function thresholds(more = {}) {
  return { ...right, ...served, [PLACE_LATENCY]: latency, ...more };
}

// For a load that is meant to become too much: ends the run where the service bends, which is where
// buyers are not served, wait too long, or fill all VUs, so that no more can be sent.
export function thresholdsUntilItBends() {
  const ends = (threshold) => ({ threshold, abortOnFail: true, delayAbortEval: '2s' });
  return thresholds({
    buyers: ['count>0'],
    buyers_served: [ends(`rate>=${successRateMin}`)],
    dropped_iterations: [ends('count==0')],
    [PLACE_LATENCY]: latency.map(ends),
  });
}
