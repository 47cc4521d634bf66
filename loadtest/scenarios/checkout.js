// Hold, then pay or give back, at a steady rate on a card event. Some cards are declined once.
// Given-back tickets are on sale again, so more buyers than the stock can be served.

import { crowd, steady } from '../lib/crowd.js';
import { checkout } from '../lib/checkout.js';
import { PAY } from '../lib/orders.js';
import { common } from '../lib/summary.js';
import { latency, thresholds } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

export const options = {
  ...common,
  scenarios: { checkout: steady(1) },
  thresholds: thresholds({ [`http_req_duration{name:${PAY}}`]: latency }),
};

export default crowd(checkout);
