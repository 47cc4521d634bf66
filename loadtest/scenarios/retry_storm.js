// The crowd that does not wait: many press several times at once, some leave before the answer and
// come back, and all ask again, with the same key, when they are told to. Right is: still one
// order each, and the stock sold exactly.

import { check, sleep } from 'k6';
import http from 'k6/http';

import { config } from '../lib/config.js';
import { anyTier, crowd, draw, isServed, spike } from '../lib/crowd.js';
import { ANSWERS, press, pressAndLeave, pressTogether } from '../lib/orders.js';
import { isPassing } from '../lib/outcomes.js';
import { common } from '../lib/summary.js';
import { soldExactly, thresholds } from '../lib/thresholds.js';

export { handleSummary } from '../lib/summary.js';

const BACKOFF_SECONDS = 0.1;

// Here, to be asked to come back later is an answer too.
http.setResponseCallback(http.expectedStatuses(...ANSWERS, 429, 503));

export const options = {
  ...common,
  scenarios: { retry_storm: spike(1.5) },
  thresholds: thresholds(soldExactly),
};

export default crowd((buyer) => {
  const result = anyTier(buyer, insist);
  if (result.order) askAgain(buyer, result);
  return isServed(result);
});

// Presses until there is an answer that will not change, the same key each time.
function insist(buyer, wanted) {
  let result = firstPress(buyer, wanted);
  for (let attempt = 1; isPassing(result.outcome) && attempt < config.attemptsMax; attempt += 1) {
    // At least what the service asks for, then twice as long each time; jitter parts the crowd.
    sleep(result.retryAfterSeconds + Math.random() * BACKOFF_SECONDS * 2 ** attempt);
    result = press(buyer, wanted);
  }
  return result;
}

function firstPress(buyer, wanted) {
  if (draw(buyer.n) < config.impatientShare) return pressAndLeave(buyer, wanted);
  const presses = 1 + (buyer.n % config.pressesMax);
  return presses === 1 ? press(buyer, wanted) : pressTogether(buyer, wanted, presses);
}

// "Did it go through?": also when all is sold out by now, the key still leads to the order.
function askAgain(buyer, { order, wanted }) {
  sleep(Math.random());
  const again = press(buyer, wanted);
  const isSame = again.order ? again.order.id === order.id : isPassing(again.outcome);
  check(again, { 'asked again, the same order': () => isSame });
}
