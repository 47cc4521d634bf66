// More and more buyers, in a straight line, until the service bends: the run ends there, with the
// threshold that was crossed. Give it more stock than buyers, so that every one of them is a sale.

import { anyTier, crowd, isServed, ramp } from '../lib/crowd.js';
import { press } from '../lib/orders.js';
import { common } from '../lib/summary.js';
import { thresholdsUntilItBends } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

export const options = {
  ...common,
  scenarios: { stress: ramp(0.25) },
  thresholds: thresholdsUntilItBends(),
};

export default crowd((buyer) => isServed(anyTier(buyer, press)));
