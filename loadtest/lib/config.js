// Every environment variable that the scripts read, once, with its unit and default.
// `loadtest/README.md` documents each; `src/onsale/loadtests/runner.py` sets the
// required ones and hands the others on.

function required(name) {
  const value = __ENV[name];
  if (!value) throw new Error(`set ${name} (see loadtest/README.md)`);
  return value;
}

function number(name, fallback) {
  const text = fallback === undefined ? required(name) : __ENV[name] || String(fallback);
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name}=${text} is not a number >= 0`);
  return value;
}

function whole(name, fallback) {
  const value = number(name, fallback);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} has to be a whole number >= 1`);
  return value;
}

function share(name, fallback) {
  const value = number(name, fallback);
  if (value > 1) throw new Error(`${name}=${value} is not a share between 0 and 1`);
  return value;
}

export const config = Object.freeze({
  // -- what is tested; whoever created the event knows its stock, so nothing here is guessed
  baseUrl: required('BASE_URL').replace(/\/+$/, ''),
  eventId: required('EVENT_ID'),
  tierIds: Object.freeze(required('TIER_IDS').split(',')),
  authSecret: required('ONSALE_AUTH_SECRET'),
  stock: whole('STOCK'),
  // Part of each buyer's name: two runs on one event must not be the same people.
  runId: required('RUN_ID'),

  // -- the crowd
  buyers: whole('BUYERS'),
  durationSeconds: whole('DURATION_SECONDS'),
  // A VU is a buyer in flight and about 1.4 MiB of memory; beyond these, arrivals are dropped.
  vusMax: whole('VUS_MAX', 1000),
  requestTimeoutSeconds: number('REQUEST_TIMEOUT_SECONDS', 10),
  duplicateShare: share('DUPLICATE_SHARE', 0.1),
  releaseShare: share('RELEASE_SHARE', 0.3),
  declinedShare: share('DECLINED_SHARE', 0.1),
  impatientShare: share('IMPATIENT_SHARE', 0.1),
  // How long an impatient buyer waits for the first answer: long enough to be sent, seldom answered.
  impatientTimeoutMs: number('IMPATIENT_TIMEOUT_MS', 2),
  pressesMax: whole('PRESSES_MAX', 5),
  attemptsMax: whole('ATTEMPTS_MAX', 6),

  // -- what is good enough
  latencyP95MsMax: number('LATENCY_P95_MS_MAX', 500),
  latencyP99MsMax: number('LATENCY_P99_MS_MAX', 1000),
  successRateMin: share('SUCCESS_RATE_MIN', 0.995),

  summaryPath: __ENV.SUMMARY_PATH || 'summary.json',
});
