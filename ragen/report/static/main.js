// Putting it together, and keeping it fresh while a run goes on.

const LIVE_EVERY = 4000; // ms between questions to the server of `watch`

function toolbar() {
  const { groups } = state.data, seeds = groups.some((g) => g.runs.length > 1);
  const names = groups.length > 1 || seeds ? el('div', { class: 'runs', role: 'group', 'aria-label': 'Runs' }, groups.map((group, i) => el('button', {
    class: 'run', 'data-run': group.name, 'aria-pressed': String(!state.hidden.has(group.name)), onclick: (event) => {
      if (!state.hidden.delete(group.name)) state.hidden.add(group.name);
      event.currentTarget.setAttribute('aria-pressed', String(!state.hidden.has(group.name)));
      change({ hidden: state.hidden });
    } }, el('i', { class: 'swatch', 'data-colour': i, style: { background: colour(i) } }), group.name, group.runs.length > 1 ? ` (${group.runs.length} seeds)` : ''))) : null;
  const said = el('output', {}, '');
  const slider = el('input', { type: 'range', id: 'smooth', min: 0, max: 20, value: state.smooth, 'aria-label': 'Smoothing', oninput: () => change({ smooth: Number(slider.value) }) });
  const each = seeds ? el('label', { class: 'check' }, el('input', { type: 'checkbox', id: 'each', onchange: (event) => change({ each: event.target.checked }) }), 'each seed') : null;
  const step = el('span', { class: 'picked' });
  const show = () => {
    said.textContent = state.smooth ? `mean over ±${state.smooth} steps` : 'off';
    step.replaceChildren(...(state.step === null ? [el('span', { class: 'small' }, 'click a curve to pick a step')] : [
      el('b', {}, `Step ${state.step}`), el('a', { href: '#episodes' }, filters.step !== ANY && Number(filters.step) !== state.step ? `episodes of step ${filters.step} ↓` : 'its episodes ↓'),
      el('button', { class: 'quiet', title: 'No step', 'aria-label': 'No step', onclick: () => { filters.step = ANY; change({ step: null }); } }, '×')]));
  };
  onChange(show);
  show();
  return el('div', { class: 'toolbar' }, names, el('label', { class: 'slider' }, 'Smoothing', slider, said), each, step);
}

function render() {
  listeners.length = 0;
  visible.clear();
  const page = document.getElementById('page');
  page.replaceChildren(...[
    heroSection(), warningSection(), tellingSection(),
    el('section', { id: 'curves' }, el('h2', {}, 'Curves'), toolbar(), curves()),
    episodeSection(), configSection(),
    el('footer', {}, `Made ${state.data.made} by python -m ragen.report. The same in a terminal: python -m ragen.report show ${state.data.runs[0].folder}. Bands span the lowest to the highest seed; bars at validation dots are 95% intervals.`),
  ].filter(Boolean));
  onChange(frame(redraw));
  if (stop.list && state.data.sampling.of) {
    onChange((keys) => { if (keys.includes('step') || keys.includes('hidden')) { stop.filters.replaceChildren(filterBar()); drawList(); } });
    drawList();
    const before = open.indices.filter((i) => i < total());
    if (before.length) openEpisodes(before, open.view); else openFirst();
  }
}

function frame(work) {
  let waiting = false;
  return () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; work(); }); } };
}

// -- theme --------------------------------------------------------------------------------------

function themeButton() {
  const button = document.getElementById('theme'), modes = ['auto', 'light', 'dark'];
  const paint = () => {
    for (const swatch of document.querySelectorAll('[data-colour]')) swatch.style.background = colour(Number(swatch.dataset.colour));
    redraw();
    if (stop.reader && open.view === 'tokens') drawReader();
  };
  button.addEventListener('click', () => {
    const next = modes[(modes.indexOf(document.documentElement.dataset.theme || 'auto') + 1) % 3];
    if (next === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
    paint();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);
}

// -- start ----------------------------------------------------------------------------------------

async function start() {
  const [data, plotly] = await Promise.all([unpackText(blobText('data')), unpackText(blobText('plotly'))]);
  state.data = JSON.parse(data);
  document.head.append(el('script', {}, plotly)); // runs at once; its hash is in the page's policy
  render();
  themeButton();
  document.documentElement.dataset.readyAfter = performance.now(); // ms since the page was asked for
  document.documentElement.dataset.ready = 'yes';
  if (document.documentElement.dataset.live) follow();
}

function follow() {
  const sign = document.querySelector('.live');
  sign.hidden = false;
  let { version } = state.data;
  setInterval(async () => {
    if (document.hidden) return;
    try {
      const now = (await (await fetch('version')).json()).version;
      sign.classList.remove('lost');
      if (now !== version) {
        const fresh = await (await fetch('payload')).json();
        Object.assign(state, { data: JSON.parse(await unpackText(fresh.data)), chunks: fresh.chunks });
        const at = scrollY;
        render();
        scrollTo(0, at);
      }
      version = now;
    } catch {
      sign.classList.add('lost'); // the server is gone; the page keeps what it has
    }
  }, LIVE_EVERY);
}

start().catch((error) => {
  document.getElementById('page').replaceChildren(el('p', { class: 'empty' }, `The report could not be drawn: ${error}. It needs a browser of 2023 or later (DecompressionStream).`));
  throw error;
});
