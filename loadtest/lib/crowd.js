// How buyers arrive and what each does. Open model: they arrive by the clock, whether or not the
// service keeps up, as people do. One iteration is one buyer.

import exec from 'k6/execution';

import { config } from './config.js';
import { newBuyer, wish } from './orders.js';
import { buyers, buyersServed, phaseGauge, ticketsTaken } from './outcomes.js';

// Wraps what a buyer does, `journey(buyer)` -> was the buyer served?, into an iteration.
export function crowd(journey) {
  return () => {
    const n = exec.scenario.iterationInTest;
    // Executors round; they are asked for a little more, and the surplus stays at home.
    if (n >= config.buyers) return;
    tellPhase();
    const buyer = newBuyer(n);
    let served = false;
    try {
      served = journey(buyer);
    } finally {
      // Also when the script throws: k6 calls a rate without samples passed.
      buyers.add(1);
      buyersServed.add(served);
      ticketsTaken.add(buyer.tickets);
    }
  };
}

// A number in [0, 1) for buyer `n`: evenly spread over the buyers, the same in every run, so that
// a share of 10 % is 10 % and a run can be repeated.
export function draw(n) {
  const GOLDEN_RATIO = 0.6180339887498949; // its multiples, modulo 1, fill [0, 1) evenly
  return (n * GOLDEN_RATIO) % 1;
}

// Tries one tier after the other until one is not sold out; each buyer starts at another tier.
// `attempt(buyer, wanted)` -> result, as of `press`.
export function anyTier(buyer, attempt) {
  let result;
  for (let i = 0; i < config.tierIds.length; i += 1) {
    result = attempt(buyer, wish(buyer, config.tierIds[(buyer.n + i) % config.tierIds.length]));
    if (result.outcome !== 'sold_out') break;
  }
  return result;
}

// What a buyer can go home with: an order, or the truth that there is none left.
export const isServed = (result) => result.order !== null || result.outcome === 'sold_out';

// Rounding loses an iteration or two of a run.
const ARRIVALS = config.buyers + 2;
const ARRIVALS_PER_SECOND = ARRIVALS / config.durationSeconds;
// The area under each curve, in units of peak x duration.
const SPIKE_AREA = 0.7;
const RAMP_AREA = 0.5;

// The phases of the run, [name, until which share of its time]; each shape below has its own. Init
// code runs in every VU, and so does the scenario's call of its shape.
let phases = [];
let phaseToldAt = 0;

// Says which phase it is, once a second: a series per phase that has samples while it lasts.
function tellPhase() {
  const now = Date.now();
  if (now - phaseToldAt < 1000) return;
  phaseToldAt = now;
  const share = (now - exec.scenario.startTime) / (config.durationSeconds * 1000);
  const [phase] = phases.find(([, until]) => share < until) || phases[phases.length - 1];
  phaseGauge.add(1, { phase });
}

// In each of these, `buyerSeconds` is how long a buyer stays when all goes well.

// The same number every second.
export function steady(buyerSeconds) {
  phases = [['steady', 1]];
  return {
    executor: 'constant-arrival-rate',
    rate: ARRIVALS,
    timeUnit: part(1),
    duration: part(1),
    ...vus(ARRIVALS_PER_SECOND, buyerSeconds),
  };
}

// The sale opens: a wall within a tenth of the time, a plateau, then a long tail.
export function spike(buyerSeconds) {
  phases = [['opening', 0.1], ['rush', 0.5], ['tail', 1]];
  const peak = ARRIVALS_PER_SECOND / SPIKE_AREA;
  const target = perMinute(peak);
  return ramping(
    [
      { target, duration: part(0.1) },
      { target, duration: part(0.4) },
      { target: 0, duration: part(0.5) },
    ],
    vus(peak, buyerSeconds),
  );
}

// From nothing to the peak in a straight line.
export function ramp(buyerSeconds) {
  phases = [['ramp', 1]];
  const peak = ARRIVALS_PER_SECOND / RAMP_AREA;
  return ramping([{ target: perMinute(peak), duration: part(1) }], vus(peak, buyerSeconds));
}

function ramping(stages, limits) {
  // Rates are whole numbers; per minute they round 60 times finer than per second.
  return { executor: 'ramping-arrival-rate', startRate: 0, timeUnit: '1m', stages, ...limits };
}

const perMinute = (perSecond) => Math.ceil(perSecond * 60);
const part = (share) => `${Math.round(config.durationSeconds * share * 1000)}ms`;

// Little's law: in flight = arrivals a second x seconds each stays. These VUs are made beforehand,
// because making one takes milliseconds of the CPU that the spike needs; more are made only when
// the service is slow, so that the crowd keeps coming all the same.
function vus(arrivalsPerSecond, buyerSeconds) {
  const inFlight = Math.max(50, Math.ceil(arrivalsPerSecond * buyerSeconds));
  return {
    preAllocatedVUs: Math.min(inFlight, config.vusMax),
    maxVUs: Math.min(inFlight * 4, config.vusMax),
    gracefulStop: `${Math.ceil(config.requestTimeoutSeconds) + 5}s`,
  };
}
