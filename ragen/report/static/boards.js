// The state shown before a turn, drawn: boards of marks, payoff tables, plain grids. What has no
// drawing is in the prompt's own words.

function boardOf(shown, answer) {
  if (!shown) return null;
  const payoffs = payoffsOf(shown);
  if (payoffs) return payoffTable(payoffs, answer);
  if (!Array.isArray(shown)) return null;
  const [first, mark] = shown;
  if (typeof first === 'string' && /^[.XO]{9}$/.test(first)) return markBoard(first, 3, 3, ticTacToeCell(answer), mark);
  if (Array.isArray(first) && typeof first[0] === 'string' && Number.isInteger(first[1]) && first[0].length === first[1] * first[2]) {
    const [cells, rows, columns] = first;
    return markBoard(cells, rows, columns, droppedCell(cells, rows, columns, answer), mark, true);
  }
  const grid = Array.isArray(first) ? first.map((row) => (Array.isArray(row) ? row.join('') : row)) : null;
  if (grid && grid.length > 1 && grid.every((row) => typeof row === 'string' && row.length === grid[0].length)) return plainGrid(grid, mark);
  return null;
}

function ticTacToeCell(answer) {
  const m = /^\(?\s*([1-3])\s*[,;\s]\s*([1-3])\s*\)?$/.exec((answer || '').trim());
  return m ? (m[1] - 1) * 3 + (m[2] - 1) : -1;
}

function droppedCell(cells, rows, columns, answer) {
  const m = /(\d+)/.exec(answer || ''), column = m ? m[1] - 1 : -1;
  if (column < 0 || column >= columns) return -1;
  for (let row = rows - 1; row >= 0; row--) if (cells[row * columns + column] === '.') return row * columns + column;
  return -1;
}

// `move`: the cell of the reply, drawn as the mark it puts there (or as a refusal, if taken)
function markBoard(cells, rows, columns, move, mark, discs = false) {
  const size = 30, svg = el('svg:svg', { class: 'board', viewBox: `0 0 ${columns * size} ${rows * size}`, width: columns * size * (discs ? 0.8 : 1.15), role: 'img', 'aria-label': `board ${cells}, ${mark} to move` });
  const last = move >= 0 ? move : -1, taken = last >= 0 && cells[last] !== '.';
  [...cells].forEach((cell, i) => {
    const x = (i % columns) * size, y = Math.floor(i / columns) * size, now = i === last;
    svg.append(el('svg:rect', { x: x + 1.5, y: y + 1.5, width: size - 3, height: size - 3, rx: 5, class: now ? (taken ? 'cell bad' : 'cell now') : 'cell' }));
    const shown = now && !taken ? mark : cell;
    if (shown !== '.') svg.append(piece(shown, x + size / 2, y + size / 2, discs));
  });
  return svg;
}

function piece(mark, x, y, disc) {
  if (disc) return el('svg:g', {}, el('svg:circle', { cx: x, cy: y, r: 10.5, class: `disc ${mark === 'X' ? 'x' : 'o'}` }), el('svg:text', { x, y: y + 3.5, 'text-anchor': 'middle', class: 'disc-mark' }, mark));
  if (mark === 'O') return el('svg:circle', { cx: x, cy: y, r: 7.5, class: 'mark o' });
  return el('svg:path', { d: `M${x - 7} ${y - 7} L${x + 7} ${y + 7} M${x + 7} ${y - 7} L${x - 7} ${y + 7}`, class: 'mark x' });
}

// -- matrix games -------------------------------------------------------------------------------

const isMatrix = (m) => Array.isArray(m) && m.length > 0 && m.every((row) => Array.isArray(row) && row.length === m[0].length && row.every((v) => typeof v === 'number'));

function payoffsOf(shown) {
  if (Array.isArray(shown) && typeof shown[0] === 'string' && isMatrix(shown[1]) && isMatrix(shown[2])) {
    return { role: shown[0], row: shown[1], column: shown[2], names: (shown[3] || []).map(String) };
  }
  if (!Array.isArray(shown) && typeof shown === 'object') {
    const row = shown.A || shown.row, column = shown.B || shown.column;
    if (isMatrix(row) && isMatrix(column)) return { role: shown.role || 'row', row, column, names: (shown.names || []).map(String) };
  }
  return null;
}

function payoffTable({ role, row, column, names }, answer) {
  const label = (i, own) => (own && names[i] !== undefined ? names[i] : `${i + 1}`);
  const bestRow = row[0].map((_, j) => Math.max(...row.map((r) => r[j]))), bestColumn = column.map((r) => Math.max(...r));
  const said = (answer || '').replace(/action/i, '').replace(/[^A-Za-z0-9]/g, '').toUpperCase();
  const picked = names.findIndex((n) => n.toUpperCase() === said), mine = role === 'column' ? 'column' : 'row';
  const head = el('tr', {}, el('th', { class: 'corner' }, 'row \\ column'), row[0].map((_, j) => el('th', { class: mine === 'column' ? 'own' : '' }, label(j, mine === 'column'))));
  const body = row.map((values, i) => el('tr', {}, el('th', { class: mine === 'row' ? 'own' : '' }, label(i, mine === 'row')), values.map((v, j) => {
    const equilibrium = v === bestRow[j] && column[i][j] === bestColumn[i];
    const chosen = picked >= 0 && (mine === 'row' ? i : j) === picked;
    const cell = el('td', { class: [equilibrium && 'equilibrium', chosen && 'chosen'].filter(Boolean).join(' ') },
      el('span', { class: v === bestRow[j] ? 'best' : '' }, v), el('span', { class: 'sep' }, ', '), el('span', { class: column[i][j] === bestColumn[i] ? 'best' : '' }, column[i][j]));
    return equilibrium ? tip(cell, 'pure equilibrium: neither gains by moving alone') : cell;
  })));
  return el('div', { class: 'payoffs' }, el('table', {}, el('thead', {}, head), el('tbody', {}, body)),
    el('p', { class: 'key' }, `plays the ${mine}s`, picked >= 0 && ' · shaded: the answer', ' · ringed: pure equilibrium · underlined: best reply'));
}

function plainGrid(rows, at) {
  const here = Array.isArray(at) && at.length === 2 && at.every(Number.isInteger) ? at : [-1, -1];
  return el('div', { class: 'plaingrid' }, rows.map((row, i) => el('div', {}, [...row].map((cell, j) => el('span', { class: i === here[0] && j === here[1] ? 'here' : '' }, cell)))));
}
