// Everything on the page is made here: elements and text nodes, never a string of HTML. Texts of
// models and envs can therefore be nothing but text.

const SVG = 'http://www.w3.org/2000/svg';

function el(tag, props = {}, ...children) {
  const node = tag.startsWith('svg:') ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'class') node.setAttribute('class', value);
    else if (name === 'style') for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value === 'boolean') node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(2).filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}

// Plotly reads a few tags in its texts; names of runs and tags are no markup.
const plotText = (text) => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

const isNumber = (v) => typeof v === 'number' && Number.isFinite(v);
const percent = (v, digits = 0) => (isNumber(v) ? `${(100 * v).toFixed(digits)}%` : '–');
const signed = (v, digits = 2) => (isNumber(v) ? (v > 0 ? '+' : v < 0 ? '−' : '') + Number(Math.abs(v).toFixed(digits)).toLocaleString('en') : '–');
const plural = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

function big(v) {
  if (!isNumber(v)) return '–';
  for (const [scale, unit] of [[1e9, 'B'], [1e6, 'M'], [1e4, 'k']]) {
    if (Math.abs(v) >= scale) return `${(v / (unit === 'k' ? 1e3 : scale)).toPrecision(3)}${unit}`;
  }
  return Math.round(v).toLocaleString('en');
}

function duration(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min`;
}

// -- packed data ------------------------------------------------------------------------------

async function unpackText(base64) {
  const raw = atob(base64);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
}

const blobText = (name) => document.getElementById(`blob-${name}`).textContent;

// -- state ------------------------------------------------------------------------------------

const state = { data: null, chunks: null, step: null, smooth: 2, hidden: new Set(), each: false };
const listeners = [];
const onChange = (listener) => listeners.push(listener);
function change(patch) {
  Object.assign(state, patch);
  for (const listener of listeners) listener(Object.keys(patch));
}

const opened = new Map();
async function episodeRow(index) {
  const { episodes } = state.data;
  const name = episodes.chunks[episodes.chunk[index]];
  const packed = state.chunks ? state.chunks[name] : blobText(name);
  if (!opened.has(packed)) opened.set(packed, unpackText(packed).then(JSON.parse));
  return (await opened.get(packed))[episodes.row[index]];
}

// -- colours that hold ------------------------------------------------------------------------

// Okabe and Ito's palette, lightened for the dark page; a run keeps its colour in every drawing.
const PALETTE = {
  light: ['#0072b2', '#d55e00', '#009e73', '#b5578f', '#b07d00', '#3f9bd1', '#5b5bc0', '#7a7a7a'],
  dark: ['#5ab4f0', '#ff8a47', '#3fd0a4', '#e59ac6', '#f0bd45', '#9fd4f5', '#a5a5f5', '#b5b5b5'],
};
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
};
const colour = (i) => { const p = PALETTE[isDark() ? 'dark' : 'light']; return p[i % p.length]; };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function faint(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

// -- a tooltip for what is not a chart ----------------------------------------------------------

function tip(node, text) {
  const box = document.getElementById('tip');
  node.addEventListener('mouseenter', () => {
    box.textContent = typeof text === 'function' ? text() : text;
    box.hidden = false;
    const at = node.getBoundingClientRect(), size = box.getBoundingClientRect();
    box.style.left = `${Math.max(8, Math.min(innerWidth - size.width - 8, at.left + at.width / 2 - size.width / 2))}px`;
    box.style.top = `${at.top - size.height - 8 > 0 ? at.top - size.height - 8 : at.bottom + 8}px`;
  });
  node.addEventListener('mouseleave', () => { box.hidden = true; });
  return node;
}
