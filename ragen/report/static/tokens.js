// A trajectory as tokens: which were trained, with what advantage, how likely the engine found them.

const TOKEN_MODES = { trained: 'trained or not', advantage: 'advantage', logprob: 'log-probability' };

function tokenView(row, mode = 'trained') {
  const tokens = row.tokens;
  if (!tokens) return el('p', { class: 'empty' }, 'Only a sample of episodes carries its tokens; this one does not. The filter “with tokens” finds those that do.');
  const stray = tokens.text.filter((_, i) => tokens.trained[i] && !isNumber(tokens.logprob[i])).length;
  const trained = tokens.trained.filter(Boolean).length;
  const body = el('div', { class: 'tokens' });
  const paint = (chosen) => {
    body.dataset.mode = chosen;
    const scale = Math.max(1e-9, ...tokens.advantage.filter(isNumber).map(Math.abs));
    [...body.children].forEach((span, i) => { span.style.background = tokenColour(tokens, i, chosen, scale); });
    for (const button of buttons.children) button.setAttribute('aria-pressed', button.dataset.mode === chosen);
    key.replaceChildren(...tokenKey(chosen, scale));
  };
  const buttons = el('div', { class: 'segmented' }, Object.entries(TOKEN_MODES).map(([name, text]) => el('button', { 'data-mode': name, onclick: () => paint(name) }, text)));
  const key = el('div', { class: 'key' });
  tokens.text.forEach((text, i) => body.append(token(tokens, text, i)));
  paint(mode);
  return el('div', {},
    el('p', { class: 'tokenhead' }, `${trained.toLocaleString('en')} of ${plural(tokens.text.length, 'token')} trained (${percent(trained / tokens.text.length)})`,
      stray ? el('b', { class: 'stray' }, ` ▲ ${plural(stray, 'trained token')} that the policy did not sample`) : ' · each of them sampled by the policy',
      tokens.left_out ? ` · ${plural(tokens.left_out, 'token')} left out` : ''),
    buttons, key, body);
}

function token(tokens, text, i) {
  const stray = tokens.trained[i] && !isNumber(tokens.logprob[i]);
  const span = el('span', { class: `token${tokens.trained[i] ? ' trained' : ''}${stray ? ' wrong' : ''}` }, text.replace(/\n/g, '⏎\n') || '∅');
  return tip(span, () => [
    `#${i}  ${JSON.stringify(text)}`, tokens.trained[i] ? 'trained' : 'not trained',
    isNumber(tokens.logprob[i]) ? `log-probability ${tokens.logprob[i].toFixed(3)} (${percent(Math.exp(tokens.logprob[i]), 1)})` : 'not sampled by the policy',
    isNumber(tokens.advantage[i]) ? `advantage ${signed(tokens.advantage[i], 3)}` : null,
  ].filter(Boolean).join('\n'));
}

function tokenColour(tokens, i, mode, scale) {
  if (mode === 'trained') return tokens.trained[i] ? faint(colour(isNumber(tokens.logprob[i]) ? 0 : 1), 0.3) : 'transparent';
  if (mode === 'advantage') {
    const a = tokens.advantage[i];
    return tokens.trained[i] && isNumber(a) ? faint(colour(a >= 0 ? 0 : 1), 0.08 + 0.6 * Math.min(1, Math.abs(a) / scale)) : 'transparent';
  }
  const p = tokens.logprob[i];
  return isNumber(p) ? faint(colour(1), Math.min(0.75, -p / 5)) : 'transparent';
}

function tokenKey(mode, scale) {
  const box = (paint, text) => el('span', {}, el('i', { class: 'box', style: { background: paint } }), text);
  if (mode === 'trained') return [box(faint(colour(0), 0.3), 'trained'), box('transparent', 'not trained'), box(faint(colour(1), 0.3), 'trained without having been sampled: a wrong mask')];
  if (mode === 'advantage') return [box(faint(colour(0), 0.68), `made likelier (up to +${scale.toPrecision(2)})`), box(faint(colour(1), 0.68), `made less likely (down to −${scale.toPrecision(2)})`)];
  return [box('transparent', 'certain, or not sampled'), box(faint(colour(1), 0.4), 'log-probability −2'), box(faint(colour(1), 0.75), '−4 and below')];
}
