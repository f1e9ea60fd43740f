// Did it learn, on what, at what cost; what to mind; three episodes to read.

const VERDICTS = { learned: ['▲', 'learned'], worse: ['▼', 'got worse'], steadier: ['△', 'loses less'], unclear: ['◆', 'no clear change'] };

function heroSection() {
  const { data } = state, several = data.runs.length > 1;
  const title = data.groups.length > 1 ? `${data.groups.length} ${data.groups.length < data.runs.length ? `settings, ${data.runs.length} runs` : 'runs side by side'}` : several ? seedsSentence(data.runs) : data.runs[0].sentence;
  return el('section', { class: 'hero', id: 'headline' },
    el('p', { class: 'kicker' }, data.title), el('h1', { class: title.length > 60 ? 'long' : null }, title.replace(/\([^)]*\)/g, (numbers) => numbers.replace(/ /g, '\u00a0'))), !several && data.runs[0].doubt ? el('p', { class: 'doubt' }, `▲ ${data.runs[0].doubt}`) : null,
    several ? compareTable() : [el('div', { class: 'results' }, data.runs[0].results.map((r) => resultCard(r))), costRow(data.runs[0])]);
}

function seedsSentence(runs) {
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  return [...new Set(runs.flatMap((r) => r.results.map((x) => x.tag)))].map((tag) => {
    const found = runs.flatMap((r) => r.results.filter((x) => x.tag === tag));
    return `${tag} learned by ${found.filter((r) => r.verdict === 'learned').length} of ${plural(found.length, 'seed')} (${percent(mean(found.map((r) => r.first)))} → ${percent(mean(found.map((r) => r.last)))})`;
  }).join('; ');
}

function resultCard(result) {
  const [glyph, word] = VERDICTS[result.verdict];
  const points = Math.round(100 * (result.last - result.first));
  const change = result.change ? `${signed(points, 0)} points (95%: ${signed(100 * result.change[0], 0)} to ${signed(100 * result.change[1], 0)})` : `${signed(points, 0)} points`;
  const [s0, s1] = result.steps, n = result.episodes[1];
  return el('div', { class: `result ${result.verdict}` },
    el('div', { class: 'line' }, el('b', {}, result.tag), el('span', { class: 'verdict' }, `${glyph} ${word}`)),
    el('p', { class: 'jump' }, el('span', { class: 'from' }, percent(result.first)), ' → ', el('span', { class: 'to' }, percent(result.last))),
    dumbbell(result),
    el('p', { class: 'small' }, s0 === s1 ? 'one measurement so far' : change, result.losses ? ` · lost ${percent(result.losses[0])} → ${percent(result.losses[1])}` : ''),
    el('p', { class: 'small' }, `${result.basis}, step ${s0} → ${s1}${n ? `, ${n.toLocaleString('en')} episodes` : ''}${percent(result.best[1]) === percent(result.last) ? '' : `; best ${percent(result.best[1])} at step ${result.best[0]}`}`));
}

// first and last with their intervals on one scale from 0 to 1
function dumbbell(result) {
  const w = 260, x = (v) => 4 + v * (w - 8);
  const svg = el('svg:svg', { class: 'dumbbell', viewBox: `0 0 ${w} 30`, role: 'img', 'aria-label': `${percent(result.first)} to ${percent(result.last)}` });
  svg.append(el('svg:line', { x1: 4, x2: w - 4, y1: 15, y2: 15, class: 'axis' }));
  for (const v of [0, 0.25, 0.5, 0.75, 1]) svg.append(el('svg:line', { x1: x(v), x2: x(v), y1: 12, y2: 18, class: 'axis' }));
  [['first', 10, result.intervals?.[0]], ['last', 20, result.intervals?.[1]]].forEach(([name, y, interval]) => {
    if (interval) svg.append(el('svg:line', { x1: x(interval[0]), x2: x(interval[1]), y1: y, y2: y, class: `interval ${name}` }));
    svg.append(el('svg:circle', { cx: x(result[name]), cy: y, r: 4.5, class: `point ${name}` }));
  });
  return svg;
}

function costRow(run) {
  const { seconds, tokens, steps, episodes } = run.cost;
  const stat = (value, name) => el('div', {}, el('b', {}, value), el('span', {}, name));
  return el('div', { class: 'cost' }, stat(duration(seconds), 'wall time'), stat(big(steps), 'steps'), stat(big(episodes), 'training episodes'), stat(big(tokens), 'tokens sampled'),
    seconds > 0 && tokens > 0 ? stat(big(tokens / seconds), 'tokens a second') : null);
}

function compareTable() {
  const { data } = state, tags = [...new Set(data.runs.flatMap((r) => r.results.map((x) => x.tag)))];
  const cell = (run, tag) => {
    const r = run.results.find((x) => x.tag === tag);
    return el('td', {}, r ? [el('span', { class: 'from' }, percent(r.first)), ' → ', el('b', {}, percent(r.last)), el('span', { class: `verdict ${r.verdict}` }, ` ${VERDICTS[r.verdict][0]}`)] : '–');
  };
  const rows = data.groups.flatMap((group, g) => group.runs.map((i) => {
    const run = data.runs[i], bad = run.warnings.filter((w) => w.severity === 'bad').length;
    return el('tr', {}, el('th', {}, el('i', { class: 'swatch', 'data-colour': g, style: { background: colour(g) } }), run.name), tags.map((tag) => cell(run, tag)),
      el('td', {}, big(run.cost.steps)), el('td', {}, duration(run.cost.seconds)), el('td', {}, big(run.cost.tokens)), el('td', {}, bad ? el('span', { class: 'warn' }, `▲ ${plural(bad, 'warning')}`) : 'none'));
  }));
  return el('div', { class: 'scroll boxed' }, el('table', { class: 'compare' }, el('thead', {}, el('tr', {}, ['run', ...tags, 'steps', 'wall time', 'tokens', 'warnings'].map((t) => el('th', {}, t)))), el('tbody', {}, rows)));
}

function warningSection() {
  const found = state.data.runs.flatMap((run) => run.warnings.map((w) => ({ ...w, run })));
  if (!found.length) return null;
  return el('section', { class: 'warnings' }, found.map((w) => el('div', { class: `warning ${w.severity}`, 'data-code': w.code },
    el('div', { class: 'line' }, el('b', {}, `▲ ${w.title}`), state.data.runs.length > 1 ? el('span', { class: 'small' }, w.run.name) : null, el('button', { class: 'quiet', onclick: () => pickStep(w.steps[0]) }, w.steps[0] === w.steps[1] ? `step ${w.steps[0]}` : `steps ${w.steps[0]} to ${w.steps[1]}`)),
    el('p', {}, w.text), el('p', { class: 'small' }, w.remedy))));
}

function tellingSection() {
  const { telling, runs } = state.data;
  if (!telling.length) return null;
  const whose = [...new Set(telling.map((t) => t.run))], tells = el('div', { class: 'tells' });
  const show = (run) => {
    tells.replaceChildren(...telling.filter((t) => t.run === run).map(tellCard));
    for (const tab of tabs.children) tab.setAttribute('aria-pressed', tab.dataset.run === String(run));
  };
  const tabs = el('div', { class: 'segmented' }, whose.map((run) => el('button', { 'data-run': run, onclick: () => show(run) }, runs[run].name)));
  show(whose[0]);
  const count = telling.filter((t) => t.run === whose[0]).length;
  return el('section', { class: 'telling' }, el('h2', {}, count === 3 ? 'Three episodes to read' : 'Episodes to read'), whose.length > 1 ? tabs : null, tells);
}

function tellCard(t) {
  const boards = el('span', { class: 'thumbs' });
  const card = el('button', { class: 'tell', onclick: () => {
    openEpisodes(t.episodes, t.view);
    document.getElementById('episodes').scrollIntoView({ behavior: 'smooth' });
  } }, el('b', {}, t.title), el('span', { class: 'reason' }, t.why), boards, el('span', { class: 'go' }, 'Read →'));
  thumbs(t, boards);
  return card;
}

// the last position of each episode, or the words of its last reply
async function thumbs(told, into) {
  for (const index of told.episodes) {
    const row = await episodeRow(index);
    const replies = row.messages.filter((m) => m.role === 'assistant'), last = replies[replies.length - 1];
    const board = last && boardOf((row.public || [])[replies.length - 1], answerOf(last.content));
    into.append(el('span', { class: 'thumb' }, chip(state.data.episodes.outcome[index], row.opponent), board || el('q', {}, last ? (answerOf(last.content) || last.content).trim().slice(0, 90) : 'no reply')));
  }
}

function configSection() {
  const { runs } = state.data;
  const keys = [...new Set(runs.flatMap((r) => Object.keys(r.config)))];
  if (!keys.length) return el('section', { id: 'configuration' }, el('h2', {}, 'Configuration'), el('p', { class: 'empty' }, 'The run folder has no config.yaml.'));
  const differ = keys.filter((k) => new Set(runs.map((r) => r.config[k] ?? '')).size > 1);
  const table = (list) => el('div', { class: 'scroll' }, el('table', { class: 'config' }, runs.length > 1 ? el('thead', {}, el('tr', {}, el('th', {}, 'key'), runs.map((r) => el('th', {}, r.name)))) : null,
    el('tbody', {}, list.map((k) => el('tr', {}, el('th', {}, k), runs.map((r) => el('td', {}, r.config[k] ?? '–')))))));
  return el('section', { id: 'configuration' }, el('h2', {}, 'Configuration'),
    runs.length > 1 ? [el('h3', {}, 'What differs'), differ.length ? table(differ) : el('p', { class: 'empty' }, 'Nothing.')] : null,
    el('details', { class: 'more' }, el('summary', {}, `All ${keys.length} keys`), table(keys)));
}
