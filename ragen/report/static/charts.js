// The curves: what is drawn, in which order, and how.

const LINES = { percent: '~%', seconds: '~g', count: '~s', plain: '~g', small: '~e' };
const HOVER = { percent: '.1%', seconds: '.2f', count: ',.0f', plain: '.4~g', small: '.3~e' };
const DASHES = ['solid', 'dot', 'dash', 'longdashdot'];
const PHASES = ['gen', 'filter', 'old_log_prob', 'ref', 'values', 'adv', 'update_critic', 'update_actor', 'sync', 'testing', 'save_checkpoint'];

function chartList() {
  const one = (title, key, unit, note, extra = {}) => ({ title, note, unit, lines: [{ key, name: title }], ...extra });
  const several = state.data.groups.length > 1;
  const success = tagsOf(['train', 'val']).map((tag) => ({
    title: tag, unit: 'percent', note: `success${onlyOpponent(tag)} · line: training, dots: validation`, span: [0, 1],
    lines: [{ key: `train/${tag}/success`, name: 'training' }, { key: `val/${tag}/success`, name: 'validation', dots: true, tag }],
  }));
  const opponents = tagsOf(['train', 'val']).filter((tag) => opponentsOf(tag).length > 1).map((tag) => ({
    title: `${tag} against`, unit: 'percent', note: 'success by opponent', legend: true, span: [0, 1],
    lines: opponentsOf(tag).flatMap((name, paint) => [
      { key: `train/${tag}/opponent/${name}/success`, name, paint },
      { key: `val/${tag}/opponent/${name}/success`, name: `${name}, validation`, paint, dots: true, unlisted: has(`train/${tag}/opponent/${name}/success`) }]),
  }));
  const ends = several ? [] : ['train', 'val'].flatMap((phase) => tagsOf([phase]).filter((tag) => has(`${phase}/${tag}/loss`) && !(phase === 'val' && has(`train/${tag}/loss`))).map((tag) => ({
    title: `${tag}: endings`, unit: 'percent', note: phase === 'val' ? 'shares in validation' : 'shares of episodes', legend: true, span: [0, 1],
    lines: [['success', 'win', 0], ['loss', 'loss', 1], ['draw', 'draw', 7], ['unfinished', 'unfinished', 3]].map(([key, name, paint]) => ({ key: `${phase}/${tag}/${key}`, name, paint, dots: phase === 'val' })),
  })));
  const list = [
    ['Success', [...success, ...opponents, ...ends]],
    ['Reward and signal', [
      one('Reward', 'rollout/reward_mean', 'plain', 'mean of a step’s episodes'),
      one('Spread in groups', 'rollout/reward_std_in_group', 'plain', 'standard deviation; 0 teaches nothing', { zero: true }),
      one('Groups with signal', ratio('rollout/groups_with_signal', 'rollout/groups_total'), 'percent', 'share whose members differ', { span: [0, 1] }),
    ]],
    ['Policy', [
      one('Entropy', 'actor/entropy', 'plain', 'nats a token', { zero: true }),
      { title: 'KL', unit: 'plain', note: 'nats a token', legend: true, zero: true, lines: [{ key: 'actor/ppo_kl', name: 'to the step’s start' }, { key: 'actor/kl_loss', name: 'to the reference' }] },
      one('Clip fraction', 'actor/pg_clipfrac', 'percent', 'tokens whose ratio left the clip range', { zero: true }),
      one('Gradient norm', 'actor/grad_norm', 'plain', 'before clipping', { zero: true }),
      one('Policy loss', 'actor/pg_loss', 'plain', ''),
      one('Learning rate', 'actor/lr', 'small', '', { zero: true }),
    ]],
    ['Replies', [
      one('Reply length', 'rollout/response_length', 'count', 'tokens', { zero: true }),
      one('Invalid', 'rollout/invalid', 'percent', 'share of turns refused', { zero: true }),
      { title: 'Cut or given up', unit: 'percent', note: '', legend: true, zero: true, lines: [{ key: 'rollout/cut_at_limit', name: 'replies cut' }, { key: 'rollout/truncated', name: 'episodes truncated' }, { key: 'rollout/aborted', name: 'aborted' }] },
    ]],
    ['Engine against trainer', [
      one('Trained tokens', 'rollout/trained_share', 'percent', 'share of all tokens', { zero: true }),
      { title: 'Log-probability gap', unit: 'plain', note: 'of the sampled tokens', log: true, legend: true, lines: [{ key: 'rollout/logprob_diff_mean', name: 'mean' }, { key: 'rollout/logprob_diff_max', name: 'largest' }] },
    ]],
    ['Speed', [
      { title: 'Time by phase', unit: 'seconds', note: 'seconds a step', phases: true, lines: phaseKeys().map((key) => ({ key, name: key.slice('timing_s/'.length) })) },
      one('Tokens per second', has('perf/tokens_per_s') ? 'perf/tokens_per_s' : 'perf/throughput', 'count', 'of the whole step', { zero: true }),
      one('Time per step', 'timing_s/step', 'seconds', 'seconds', { zero: true }),
    ]],
  ];
  const used = new Set(list.flatMap(([, charts]) => charts.flatMap((c) => c.lines.map((l) => l.key))));
  ['rollout/groups_with_signal', 'rollout/groups_total', 'perf/throughput', 'perf/time_per_step'].forEach((key) => used.add(key));
  const rest = allKeys().filter((key) => !used.has(key)).sort().map((key) => ({ title: key, unit: 'plain', lines: [{ key, name: key, dots: key.startsWith('val/') }] }));
  const drawn = list.map(([name, charts]) => [name, charts.filter((c) => c.lines.some((l) => has(l.key)))]).filter(([, charts]) => charts.length);
  return { drawn, rest };
}

function onlyOpponent(tag) {
  const names = opponentsOf(tag);
  return names.length === 1 ? ` against ${names[0]}` : '';
}

function phaseKeys() {
  const logged = allKeys().filter((k) => k.startsWith('timing_s/') && k !== 'timing_s/step').map((k) => k.slice('timing_s/'.length));
  return [...PHASES.filter((p) => logged.includes(p)), ...logged.filter((p) => !PHASES.includes(p)).sort()].map((p) => `timing_s/${p}`);
}

// -- traces -----------------------------------------------------------------------------------

const shownGroups = () => state.data.groups.map((group, i) => ({ ...group, index: i, members: group.runs.map((r) => state.data.runs[r]) }))
  .filter((group) => !state.hidden.has(group.name));

function traces(chart) {
  if (chart.phases) return phaseTraces(chart);
  const groups = shownGroups(), lines = chart.lines.filter((l) => has(l.key));
  const byLine = state.data.groups.length === 1 && lines.length > 1 && chart.legend;
  return groups.flatMap((group) => lines.flatMap((line, i) => {
    const paint = colour(byLine ? line.paint ?? i : group.index);
    const dash = byLine ? 'solid' : DASHES[(chart.legend ? line.paint ?? i : 0) % DASHES.length];
    const name = [state.data.groups.length > 1 && group.name, lines.length > 1 && line.name].filter(Boolean).join(' · ') || line.name;
    return lineTraces(group, line, { paint, dash, name: plotText(name), format: HOVER[chart.unit] });
  }));
}

function lineTraces(group, line, look) {
  const reach = line.dots ? 0 : state.smooth;
  if (group.members.length > 1 && !state.each) return (line.dots ? spreadTraces : bandTraces)(overRuns(group.members, line.key, reach), line, look);
  return group.members.flatMap((run) => {
    const { x, y } = points(run, line.key);
    if (!x.length) return [];
    const name = group.members.length > 1 ? `${plotText(run.name)}${line.dots ? ' · validation' : ''}` : look.name;
    const drawn = { x, y: smooth(y, reach), name, customdata: y, ...stroke(line, look), hovertemplate: `%{y:${look.format}}${reach ? ` <i>(%{customdata:${look.format}})</i>` : ''}` };
    if (line.tag) drawn.error_y = intervals(run, line.tag, x, y, look.paint);
    const raw = { x, y, mode: 'lines', line: { color: faint(look.paint, 0.25), width: 1 }, hoverinfo: 'skip', showlegend: false };
    return reach && x.length > 2 ? [raw, drawn] : [drawn];
  });
}

const stroke = (line, look) => (line.dots
  ? { mode: 'lines+markers', line: { color: faint(look.paint, 0.45), width: 1.2, dash: 'dot' }, marker: { color: look.paint, size: 8, line: { color: css('--surface'), width: 1.5 } } }
  : { mode: 'lines', line: { color: look.paint, width: 2.2, dash: look.dash } });

function bandTraces(curve, line, look) {
  if (!curve || !curve.x.length) return [];
  const edge = { mode: 'lines', line: { width: 0, color: look.paint }, hoverinfo: 'skip', showlegend: false };
  const range = curve.x.map((_, i) => [curve.low[i], curve.high[i]]);
  return [
    { ...edge, x: curve.x, y: curve.low },
    { ...edge, x: curve.x, y: curve.high, fill: 'tonexty', fillcolor: faint(look.paint, 0.16) },
    { x: curve.x, y: curve.mean, name: look.name, customdata: range, ...stroke(line, look),
      hovertemplate: `%{y:${look.format}} <i>(%{customdata[0]:${look.format}} to %{customdata[1]:${look.format}})</i>` },
  ];
}

// validation dots of several runs: their mean, with bars from the lowest to the highest
function spreadTraces(curve, line, look) {
  if (!curve || !curve.x.length) return [];
  const bars = { type: 'data', symmetric: false, array: curve.high.map((v, i) => v - curve.mean[i]), arrayminus: curve.mean.map((v, i) => v - curve.low[i]), color: faint(look.paint, 0.55), thickness: 1.3, width: 3 };
  const [, , mean] = bandTraces(curve, line, look);
  return [{ ...mean, error_y: bars }];
}

function intervals(run, tag, x, y, paint) {
  const logged = run.metrics[`val/${tag}/episodes`], known = run.results.find((r) => r.tag === tag)?.episodes[1];
  const n = x.map((step) => logged?.[run.steps.indexOf(step)] || known);
  if (!n.every((v) => v > 0)) return undefined;
  const both = y.map((p, i) => wilson(Math.min(1, Math.max(0, p)), n[i]));
  return { type: 'data', symmetric: false, array: both.map(([, hi], i) => hi - y[i]), arrayminus: both.map(([lo], i) => y[i] - lo), color: faint(paint, 0.55), thickness: 1.3, width: 3 };
}

// one run: its steps stacked; several: a bar each
function phaseTraces(chart) {
  const groups = shownGroups();
  if (groups.length === 1 && groups[0].members.length === 1) {
    const run = groups[0].members[0];
    const x = run.steps.filter((_, i) => chart.lines.some((l) => l.key !== 'timing_s/testing' && isNumber(run.metrics[l.key]?.[i])));
    return chart.lines.map((line, i) => {
      const values = run.steps.map((_, k) => run.metrics[line.key]?.[k]).filter((_, k) => x.includes(run.steps[k])).map((v) => v ?? 0);
      return { x, y: smooth(values, line.key === 'timing_s/testing' ? 0 : state.smooth), name: plotText(line.name), stackgroup: 'time', mode: 'lines', line: { width: 0.5, color: colour(i) }, fillcolor: faint(colour(i), 0.55), hovertemplate: '%{y:.2f} s' };
    });
  }
  const mean = (run, key) => { const { y } = points(run, key); return y.reduce((a, b) => a + b, 0) / Math.max(1, run.steps.length); };
  return chart.lines.map((line, i) => ({
    type: 'bar', orientation: 'h', name: plotText(line.name), marker: { color: faint(colour(i), 0.75) },
    y: groups.map((g) => plotText(g.name)), x: groups.map((g) => g.members.reduce((s, run) => s + mean(run, line.key), 0) / g.members.length),
    hovertemplate: `${plotText(line.name)} %{x:.2f} s<extra></extra>`,
  }));
}

// -- drawing ----------------------------------------------------------------------------------

function layout(chart, drawn) {
  const ink = css('--muted'), grid = css('--line'), bars = drawn.some((t) => t.type === 'bar');
  const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickfont: { color: ink, size: 11 }, fixedrange: false };
  const shapes = state.step === null || bars ? [] : [{ type: 'line', xref: 'x', yref: 'paper', x0: state.step, x1: state.step, y0: 0, y1: 1, line: { color: css('--accent'), width: 1.5, dash: 'dot' } }];
  const yaxis = { ...axis, tickformat: LINES[chart.unit], nticks: 5, rangemode: chart.zero ? 'tozero' : 'normal', type: chart.log ? 'log' : 'linear' };
  const y = drawn.flatMap((t) => t.y || []).filter(isNumber);
  if (chart.log) Object.assign(yaxis, { dtick: 1, tickformat: '.0e', range: decades(y.filter((v) => v > 0)) });
  if (chart.zero && y.every((v) => v === 0)) yaxis.range = [-0.02, 1].map((v) => v * (chart.unit === 'percent' ? 0.05 : 1));
  if (chart.span) {
    const top = Math.max(0.1, ...y);
    Object.assign(yaxis, { range: [Math.max(-0.02, Math.min(...y) > 0.25 ? Math.min(...y) - 0.1 : -0.02), Math.min(1.02, top + 0.08)] });
  }
  return {
    height: chart.wide ? 420 : 230, margin: { l: bars ? 110 : 48, r: 14, t: 8, b: 30 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: css('--sans'), size: 12, color: css('--ink') }, hovermode: bars ? 'closest' : 'x unified', showlegend: false, barmode: 'stack', shapes,
    xaxis: { ...axis, showgrid: bars, nticks: 7, tickformat: bars ? '~g' : 'd', hoverformat: 'd', unifiedhovertitle: { text: 'step %{x}' } },
    yaxis: bars ? { ...axis, automargin: true } : yaxis,
    hoverlabel: { bgcolor: css('--surface'), bordercolor: css('--line'), font: { color: css('--ink'), size: 12 } },
  };
}

const decades = (y) => (y.length ? [Math.floor(Math.log10(Math.min(...y))) - 0.1, Math.ceil(Math.log10(Math.max(...y))) + 0.1] : [-6, 0]);

const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false, doubleClick: 'reset' };
const visible = new Set();
const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) { visible.add(entry.target); draw(entry.target); } else visible.delete(entry.target);
}), { rootMargin: '300px' });

function draw(box) {
  const chart = box.chart;
  if (!chart || !window.Plotly) return;
  const drawn = traces(chart);
  box.stale = false;
  Plotly.react(box, drawn, layout(chart, drawn), CONFIG);
  if (!box.listens) {
    box.listens = true;
    box.on('plotly_click', (event) => { const x = event.points[0]?.x; if (isNumber(x)) pickStep(x); });
  }
}

function redraw() {
  for (const box of document.querySelectorAll('.plot')) box.stale = true;
  for (const box of visible) draw(box);
}

function chartCard(chart) {
  const box = el('div', { class: 'plot' });
  box.chart = chart;
  const wider = el('button', { class: 'quiet icon', title: 'Larger or smaller', 'aria-label': `Enlarge ${chart.title}`, onclick: () => {
    chart.wide = !chart.wide;
    card.classList.toggle('wide', chart.wide);
    draw(box);
    Plotly.Plots.resize(box);
  } }, '⤢');
  const card = el('figure', { class: 'chart', 'data-chart': chart.title }, el('figcaption', {}, el('b', {}, chart.title), legend(chart) ? el('span', { class: 'note' }, chart.note || '') : null, wider),
    legend(chart) || el('div', { class: 'legend' }, chart.note || ''), box);
  watcher.observe(box);
  return card;
}

function legend(chart) {
  const lines = chart.lines.filter((l) => has(l.key) && !l.unlisted);
  if (!(chart.legend || chart.phases) || lines.length < 1) return null;
  const byLine = chart.phases || (state.data.groups.length === 1 && lines.length > 1);
  return el('div', { class: 'legend' }, lines.map((line, i) => el('span', {}, byLine
    ? el('i', { class: 'swatch', 'data-colour': line.paint ?? i, style: { background: colour(line.paint ?? i) } })
    : el('i', { class: `dash d${(line.paint ?? i) % DASHES.length}` }), line.name)));
}

function curves() {
  const { drawn, rest } = chartList();
  const section = ([name, charts]) => el('section', { class: 'charts' }, el('h3', {}, name), el('div', { class: 'grid' }, charts.map(chartCard)));
  const others = el('div', { class: 'grid' });
  const more = rest.length ? el('details', { class: 'more', ontoggle: () => { if (!others.children.length) others.append(...rest.map(chartCard)); } }, el('summary', {}, `Every other metric (${rest.length})`), others) : null;
  return [drawn.map(section), more];
}
