// The checkout for a long time at a moderate rate: what leaks or fills up shows here.

import { crowd, steady } from '../lib/crowd.js';
import { checkout } from '../lib/checkout.js';
import { common } from '../lib/summary.js';
import { thresholds } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

export const options = {
  ...common,
  scenarios: { soak: steady(1) },
  thresholds: thresholds(),
};

export default crowd(checkout);
