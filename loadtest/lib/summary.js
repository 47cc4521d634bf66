// What a run leaves behind: all of k6's figures as JSON at SUMMARY_PATH, and a few lines to read.

import { config } from './config.js';

// Options that every scenario shares.
export const common = {
  summaryTrendStats: ['avg', 'min', 'p(50)', 'p(95)', 'p(99)', 'max', 'count'],
  // Only bounded tags: no url, ip or error text.
  systemTags: ['check', 'error_code', 'expected_response', 'method', 'name', 'scenario', 'status'],
  noVUConnectionReuse: false, // a VU keeps its connection, as a load balancer in front would
};

export function handleSummary(data) {
  return { [config.summaryPath]: JSON.stringify(data), stdout: `${lines(data).join('\n')}\n` };
}

function lines(data) {
  const metrics = Object.entries(data.metrics).sort();
  const outcomes = metrics
    .filter(([name, metric]) => name.startsWith('outcome_') && metric.values.count > 0)
    .map(([name, metric]) => `${name.slice('outcome_'.length)} ${metric.values.count}`);
  const verdicts = metrics.flatMap(([name, metric]) =>
    Object.entries(metric.thresholds || {}).map(([rule, { ok }]) => `${ok ? 'ok    ' : 'FAILED'} ${name}: ${rule}`),
  );
  return [`outcomes: ${outcomes.join(', ') || 'none'}`, ...verdicts];
}
