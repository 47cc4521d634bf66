// From hold to the end of it, as most buyers on a card event go.

import { config } from './config.js';
import { anyTier, draw } from './crowd.js';
import { pay, press, release } from './orders.js';

// Holds a ticket, then gives it back, or pays: some with a card that is declined first.
// Returns whether all of it went as the buyer meant it, or the tickets were gone.
export function checkout(buyer) {
  const { order, outcome } = anyTier(buyer, press);
  if (order === null) return outcome === 'sold_out';
  const fate = draw(buyer.n);
  if (fate < config.releaseShare) return release(buyer, order) === 'released';
  if (fate < config.releaseShare + config.declinedShare && pay(buyer, order, 'declined') !== 'declined') return false;
  return pay(buyer, order, 'ok') === 'confirmed';
}
