// The sale opens and everybody comes: distinct buyers, one order each, in a spike. Some press twice
// at the same moment with one key. Right is: exactly the stock is sold, everybody else hears that
// it is sold out, and two presses are one order.

import { config } from '../lib/config.js';
import { anyTier, crowd, draw, isServed, spike } from '../lib/crowd.js';
import { press, pressTogether } from '../lib/orders.js';
import { common } from '../lib/summary.js';
import { soldExactly, thresholds } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

export const options = {
  ...common,
  scenarios: { flash_sale: spike(0.5) },
  thresholds: thresholds(soldExactly),
};

const pressTwice = (buyer, wanted) => pressTogether(buyer, wanted, 2);

export default crowd((buyer) => {
  const pressesTwice = draw(buyer.n) < config.duplicateShare;
  return isServed(anyTier(buyer, pressesTwice ? pressTwice : press));
});
