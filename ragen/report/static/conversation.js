// One episode, read from top to bottom: what was shown, what was replied, what came of it.

const WORDS = { win: 'won', draw: 'draw', loss: 'lost', forfeit: 'forfeited', unfinished: 'out of turns', truncated: 'out of room', aborted: 'given up' };
const GLYPHS = { win: '●', draw: '◐', loss: '○', forfeit: '⊘', unfinished: '◌', truncated: '✂', aborted: '✕' };
const outcomeWord = (outcome, opponent) => (opponent || !['win', 'loss'].includes(outcome) ? WORDS[outcome] : outcome === 'win' ? 'right' : 'wrong');
const chip = (outcome, opponent) => el('span', { class: `chip ${outcome}` }, `${GLYPHS[outcome]} ${outcomeWord(outcome, opponent)}`);

// <think>…</think><answer>…</answer>, each part shown for what it is; anything else as it stands
function replyParts(text) {
  const parts = [], pattern = /<(think|answer)>([\s\S]*?)<\/\1>/g;
  let last = 0;
  for (let m = pattern.exec(text); m; m = pattern.exec(text)) {
    if (text.slice(last, m.index).trim()) parts.push(['plain', text.slice(last, m.index)]);
    parts.push([m[1], m[2]]);
    last = pattern.lastIndex;
  }
  if (text.slice(last).trim() || !parts.length) parts.push(['plain', text.slice(last)]);
  return parts;
}
const answerOf = (text) => { const found = replyParts(text).filter(([kind]) => kind === 'answer'); return found.length ? found[found.length - 1][1] : ''; };

function reply(message) {
  return el('div', { class: 'reply' }, replyParts(message.content).map(([kind, text]) => {
    if (kind === 'think') return text.trim() ? el('p', { class: 'think' }, text.trim()) : el('p', { class: 'think none' }, 'no thoughts');
    if (kind === 'answer') return el('p', { class: 'answer' }, text.trim() || '(empty)');
    return el('p', { class: 'plain' }, text.trim() || '(empty reply)');
  }));
}

function clamped(text, lines = 7) {
  const box = el('div', { class: 'said' }, text.trim());
  if (text.split('\n').length <= lines && text.length < 480) return box;
  box.classList.add('clamp');
  const more = el('button', { class: 'quiet', onclick: () => { more.textContent = box.classList.toggle('clamp') ? 'show all' : 'show less'; } }, 'show all');
  return el('div', {}, box, more);
}

function turnNode(number, prompts, message, row) {
  const board = boardOf((row.public || [])[number], answerOf(message.content));
  const refused = message.valid === false;
  const reward = isNumber(message.reward) ? message.reward : (row.turn_rewards || [])[number];
  return el('li', { class: `turn${refused ? ' refused' : ''}` },
    el('div', { class: 'turnhead' }, el('b', {}, `Turn ${number + 1}`), isNumber(reward) ? el('span', { class: `reward ${reward > 0 ? 'up' : reward < 0 ? 'down' : ''}` }, `reward ${signed(reward)}`) : null),
    el('div', { class: 'shown' }, el('div', { class: 'prompts' }, prompts.map((p) => [el('span', { class: 'who' }, p.role === 'system' ? 'system' : 'game'), clamped(p.content)])), board ? el('div', { class: 'drawing' }, board) : null),
    el('div', { class: 'answered' }, el('span', { class: 'who' }, row.role ? `policy as ${row.role}` : 'policy'), reply(message),
      refused ? el('p', { class: 'why' }, `✕ refused${message.feedback ? `: ${message.feedback}` : ''}`) : message.feedback ? el('p', { class: 'feedback' }, message.feedback) : null));
}

function conversation(row) {
  const turns = [];
  let prompts = [], number = 0;
  for (const message of row.messages) {
    if (message.role === 'assistant') {
      turns.push(turnNode(number, prompts, message, row));
      prompts = []; number += 1;
    } else if (message.role !== 'system' || message.content.trim()) prompts.push(message);
  }
  if (prompts.length) turns.push(el('li', { class: 'turn' }, el('div', { class: 'turnhead' }, el('b', {}, 'Not answered')), el('div', { class: 'shown' }, el('div', { class: 'prompts' }, prompts.map((p) => clamped(p.content))))));
  return el('ol', { class: 'conversation' }, turns);
}

function rewardBars(row) {
  const rewards = (row.turn_rewards || []).map((v) => (isNumber(v) ? v : 0)), most = Math.max(1e-9, ...rewards.map(Math.abs));
  if (!rewards.length) return null;
  const svg = el('svg:svg', { class: 'rewards', viewBox: `0 0 ${rewards.length * 14} 34`, width: rewards.length * 14, height: 34, role: 'img', 'aria-label': `reward by turn: ${rewards.join(', ')}` });
  svg.append(el('svg:line', { x1: 0, x2: rewards.length * 14, y1: 17, y2: 17 }));
  rewards.forEach((v, i) => {
    const h = Math.max(1.5, (15 * Math.abs(v)) / most);
    svg.append(el('svg:rect', { x: i * 14 + 3, width: 8, y: v >= 0 ? 17 - h : 17, height: h, rx: 1.5, class: v > 0 ? 'up' : v < 0 ? 'down' : '' }));
  });
  return tip(el('span', { class: 'rewardbox' }, svg), () => rewards.map((v, i) => `turn ${i + 1}: ${signed(v)}`).join('\n'));
}
