// The list of episodes with its filters, and the reader beside it.

const ANY = '';
const filters = { run: ANY, phase: ANY, step: ANY, tag: ANY, opponent: ANY, outcome: ANY, extra: ANY, sort: 'order' };
const SORTS = { order: 'as played', worst: 'worst first', best: 'best first', longest: 'most turns first' };
const EXTRAS = { [ANY]: 'any', tokens: 'with tokens', refused: 'with a refused reply', left: 'left out of the loss' };
const PAGE = 60;
let open = { indices: [], view: 'conversation' }, listed = PAGE;
const stop = { list: null, filters: null, reader: null };

const columns = () => state.data.episodes;
const total = () => columns().step.length;
const distinct = (name) => [...new Set(columns()[name])];

function matching() {
  const e = columns(), found = [];
  for (let i = 0; i < total(); i++) {
    if (['run', 'phase', 'step', 'tag', 'opponent', 'outcome'].some((name) => filters[name] !== ANY && String(e[name][i]) !== filters[name])) continue;
    if (state.hidden.has(state.data.runs[e.run[i]].group)) continue;
    if (filters.extra === 'tokens' && !e.tokens[i]) continue;
    if (filters.extra === 'refused' && !e.refused[i]) continue;
    if (filters.extra === 'left' && e.kept[i]) continue;
    found.push(i);
  }
  const by = { worst: (a, b) => e.reward[a] - e.reward[b], best: (a, b) => e.reward[b] - e.reward[a], longest: (a, b) => e.turns[b] - e.turns[a] }[filters.sort];
  return by ? found.sort(by) : found;
}

// -- filters ------------------------------------------------------------------------------------

function choice(name, label, options) {
  const select = el('select', { id: `filter-${name}`, onchange: () => setFilter(name, select.value) }, options.map(([value, text]) => el('option', { value, selected: String(value) === filters[name] }, text)));
  return el('label', {}, el('span', {}, label), select);
}

function filterBar() {
  const e = columns();
  const values = (name, text = (v) => v) => [[ANY, 'all'], ...distinct(name).map((v) => [v, text(v)])];
  const steps = distinct('step').sort((a, b) => a - b);
  const counts = new Map();
  e.step.forEach((s) => counts.set(s, (counts.get(s) || 0) + 1));
  const opponents = distinct('opponent').filter(Boolean);
  return el('div', { class: 'filters' },
    state.data.runs.length > 1 ? choice('run', 'Run', [[ANY, 'all'], ...state.data.runs.map((r, i) => [i, r.name])]) : null,
    el('div', { class: 'stepper' }, choice('step', 'Step', [[ANY, 'all'], ...steps.map((s) => [s, `${s} (${counts.get(s)})`])]),
      el('button', { title: 'Step before', 'aria-label': 'Step before', onclick: () => moveStep(-1) }, '‹'), el('button', { title: 'Step after', 'aria-label': 'Step after', onclick: () => moveStep(1) }, '›')),
    choice('phase', 'Phase', [[ANY, 'all'], ['train', 'training'], ['val', 'validation']]),
    distinct('tag').length > 1 ? choice('tag', 'Task', values('tag')) : null,
    opponents.length ? choice('opponent', 'Opponent', [[ANY, 'all'], ...opponents.map((o) => [o, o])]) : null,
    choice('outcome', 'Outcome', [[ANY, 'all'], ...Object.keys(WORDS).filter((o) => e.outcome.includes(o)).map((o) => [o, `${GLYPHS[o]} ${opponents.length ? WORDS[o] : outcomeWord(o, '')}`])]),
    choice('extra', 'Only', Object.entries(EXTRAS)), choice('sort', 'Order', Object.entries(SORTS)),
    el('button', { class: 'quiet', onclick: () => { Object.assign(filters, { run: ANY, phase: ANY, step: ANY, tag: ANY, opponent: ANY, outcome: ANY, extra: ANY }); change({ step: null }); } }, 'clear'));
}

function setFilter(name, value) {
  filters[name] = value;
  listed = PAGE;
  if (name === 'step') change({ step: value === ANY ? null : Number(value) });
  else { drawList(); openFirst(); }
}

function moveStep(by) {
  const steps = distinct('step').sort((a, b) => a - b);
  const at = steps.indexOf(Number(filters.step));
  const next = filters.step === ANY || at < 0 ? (by > 0 ? 0 : steps.length - 1) : at + by;
  if (steps[next] !== undefined) pickStep(steps[next]);
}

// a step of a curve; its episodes, or those of the nearest step that has some
function pickStep(step) {
  const steps = distinct('step');
  const nearest = steps.length ? steps.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a)) : step;
  filters.step = String(nearest);
  listed = PAGE;
  change({ step });
  openFirst();
}

// -- list -----------------------------------------------------------------------------------------

function drawList() {
  const e = columns(), found = matching();
  const shown = found.slice(0, listed);
  const rows = shown.map((i) => el('li', {}, el('button', { class: `card${open.indices.includes(i) ? ' open' : ''}`, 'data-episode': i, onclick: () => openEpisodes([i], open.view) },
    el('span', { class: 'line' }, chip(e.outcome[i], e.opponent[i]), el('b', {}, e.tag[i]), el('span', { class: 'number' }, signed(e.reward[i]))),
    el('span', { class: 'line small' }, `step ${e.step[i]}${e.phase[i] === 'val' ? ' validation' : ''} · group ${e.group[i]}.${e.member[i]}`, e.opponent[i] ? ` · against ${e.opponent[i]}` : '', ` · ${plural(e.turns[i], 'turn')}`,
      e.refused[i] ? el('span', { class: 'warn' }, ` · ${e.refused[i]} refused`) : null, e.tokens[i] ? ' · tokens' : '', state.data.runs.length > 1 ? ` · ${state.data.runs[e.run[i]].name}` : ''))));
  const more = found.length > listed ? el('li', {}, el('button', { class: 'quiet', onclick: () => { listed += PAGE; drawList(); } }, `show ${Math.min(PAGE, found.length - listed)} more`)) : null;
  stop.list.replaceChildren(el('p', { class: 'count', 'data-count': found.length }, plural(found.length, 'episode')), el('ul', {}, rows, more));
}

function openFirst() {
  const first = matching()[0];
  if (first === undefined) { open = { indices: [], view: open.view }; stop.reader.replaceChildren(el('p', { class: 'empty' }, 'No episode fits these filters.')); return; }
  openEpisodes([first], open.view, false);
}

function openEpisodes(indices, view = 'conversation', mark = true) {
  open = { indices, view };
  if (mark || stop.list) for (const card of stop.list.querySelectorAll('.card')) card.classList.toggle('open', indices.includes(Number(card.dataset.episode)));
  return drawReader();
}

// -- reader ---------------------------------------------------------------------------------------

async function drawReader() {
  const { indices, view } = open;
  const rows = await Promise.all(indices.map(episodeRow));
  if (indices !== open.indices) return; // another was opened meanwhile
  const tab = (name, text) => el('button', { 'aria-pressed': String(view === name), 'data-view': name, onclick: () => openEpisodes(indices, name) }, text);
  stop.reader.replaceChildren(
    el('div', { class: 'tabs segmented' }, tab('conversation', 'Conversation'), tab('tokens', 'Tokens')),
    el('div', { class: `columns n${rows.length}` }, rows.map((row, k) => el('article', {}, readerHead(row, indices[k]), view === 'tokens' ? tokenView(row) : conversation(row)))));
}

function readerHead(row, index) {
  const e = columns(), run = state.data.runs[e.run[index]];
  const facts = [row.opponent && `against ${row.opponent}`, `${row.phase === 'val' ? 'validation at' : ''} step ${row.step}`.trim(), `group ${row.group}, member ${row.member}`, `seed ${row.seed}`,
    row.kept === false && row.phase === 'train' && 'left out of the loss', state.data.runs.length > 1 && run.name].filter(Boolean);
  return el('header', {},
    el('div', { class: 'line' }, el('h3', {}, row.tag), chip(e.outcome[index], row.opponent), el('span', { class: 'total' }, `reward ${signed(row.reward)}`), rewardBars(row)),
    el('p', { class: 'facts' }, facts.join(' · ')), row.error ? el('p', { class: 'why' }, `✕ ${row.error}`) : null, siblings(index));
}

// the other members of the group that are in the file, to compare with
function siblings(index) {
  const e = columns(), mine = [];
  for (let i = 0; i < total(); i++) if (e.run[i] === e.run[index] && e.chunk[i] === e.chunk[index] && e.group[i] === e.group[index] && e.agent[i] === e.agent[index]) mine.push(i);
  if (mine.length < 2) return null;
  return el('div', { class: 'siblings' }, el('span', { class: 'small' }, 'same start:'), mine.map((i) => tip(el('button', {
    class: `sibling ${e.outcome[i]}${i === index ? ' here' : ''}`, 'aria-label': `member ${e.member[i]}`, onclick: () => openEpisodes(open.indices.map((k) => (k === index ? i : k)), open.view) }, GLYPHS[e.outcome[i]]),
  `member ${e.member[i]}: ${outcomeWord(e.outcome[i], e.opponent[i])}, reward ${signed(e.reward[i])}`)));
}

function episodeSection() {
  const { shown, of, folders } = state.data.sampling;
  if (!of) return el('section', { id: 'episodes' }, el('h2', {}, 'Episodes'), el('p', { class: 'empty' }, 'The run wrote no trajectories.'));
  const said = shown === of ? `All ${plural(of, 'episode')} of ${folders.join(', ')}.`
    : `A sample: ${shown.toLocaleString('en')} of ${plural(of, 'episode')}. Of each step: one with tokens, the ends of its widest group, best and worst of each task, one of each outcome, then a fixed draw. The rest is in ${folders.join(', ')}.`;
  stop.filters = el('div', {}, filterBar());
  stop.list = el('div', { class: 'list' });
  stop.reader = el('div', { class: 'reader' });
  return el('section', { id: 'episodes' }, el('h2', {}, 'Episodes'), el('p', { class: 'lead', id: 'sampling' }, said), stop.filters, el('div', { class: 'split' }, stop.list, stop.reader));
}
