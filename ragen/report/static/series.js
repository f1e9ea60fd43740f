// From metric columns to curves: smoothing, and mean and band over the runs of a group.

// (steps, values) of one run without gaps
function points(run, key) {
  const values = typeof key === 'function' ? key(run) : run.metrics[key];
  if (!values) return { x: [], y: [] };
  const x = [], y = [];
  values.forEach((v, i) => { if (isNumber(v)) { x.push(run.steps[i]); y.push(v); } });
  return { x, y };
}

// mean over the neighbours up to `reach` points to either side, nearer ones weighing more
function smooth(values, reach) {
  if (!reach) return values;
  return values.map((_, i) => {
    let sum = 0, weight = 0;
    for (let j = Math.max(0, i - reach); j <= Math.min(values.length - 1, i + reach); j++) {
      const w = 1 + reach - Math.abs(i - j);
      sum += w * values[j]; weight += w;
    }
    return sum / weight;
  });
}

// mean, lowest and highest over the runs of a group, at the steps that at least half of them have
function overRuns(runs, key, reach) {
  const curves = runs.map((run) => points(run, key)).filter((c) => c.x.length);
  if (!curves.length) return null;
  const at = new Map();
  for (const c of curves) {
    const y = smooth(c.y, reach);
    c.x.forEach((x, i) => { if (!at.has(x)) at.set(x, []); at.get(x).push(y[i]); });
  }
  const x = [...at.keys()].filter((k) => at.get(k).length >= curves.length / 2).sort((a, b) => a - b);
  const of = (f) => x.map((k) => f(at.get(k)));
  return { x, n: curves.length, mean: of((v) => v.reduce((a, b) => a + b) / v.length), low: of((v) => Math.min(...v)), high: of((v) => Math.max(...v)) };
}

const allKeys = () => [...new Set(state.data.runs.flatMap((run) => Object.keys(run.metrics)))];
const has = (key) => state.data.runs.some((run) => (typeof key === 'function' ? key(run) : run.metrics[key])?.some(isNumber));
function tagsOf(phases) {
  const found = new Set();
  for (const key of allKeys()) {
    const [phase, tag, name, more] = key.split('/');
    if (phases.includes(phase) && name === 'success' && more === undefined) found.add(tag);
  }
  return [...found];
}
const opponentsOf = (tag) => [...new Set(['train', 'val'].flatMap((phase) => allKeys()
  .filter((k) => k.startsWith(`${phase}/${tag}/opponent/`) && k.endsWith('/success'))
  .map((k) => k.slice(`${phase}/${tag}/opponent/`.length, -'/success'.length))))];

// a share of two logged counts
const ratio = (above, below) => (run) => {
  const [a, b] = [run.metrics[above], run.metrics[below]];
  return a && b ? a.map((v, i) => (isNumber(v) && b[i] > 0 ? v / b[i] : null)) : undefined;
};

// 95% interval of a share (Wilson)
function wilson(p, n) {
  const z = 1.96, centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}
