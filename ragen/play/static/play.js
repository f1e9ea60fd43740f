// One game as it goes: the server's state is asked for, drawn anew, answered.

const shown = { version: 0, question: null };
const at = (id) => document.getElementById(id);

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`/state?known=${shown.version}`);
      const now = await answer.json();
      if (now.version !== shown.version) draw(now);
    } catch {
      at('now').replaceChildren(el('p', { class: 'why' }, 'The server does not answer; is ragen.play still running?'));
      shown.version = 0;
      await new Promise((wake) => setTimeout(wake, 2000));
    }
  }
}

async function post(path, body) {
  const answer = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  return answer.ok && (await answer.json()).taken;
}

function draw(now) {
  shown.version = now.version;
  shown.question = now.question;
  const { question, result, moves } = now;
  at('now').replaceChildren(...(result ? ending(result) : question ? asking(question) : [el('p', { class: 'rules' }, 'The model is thinking…')]));
  at('form').hidden = !question;
  at('legal').replaceChildren(...(question && question.legal && question.legal.length <= 40 ? question.legal.map(choice) : []));
  at('moves').replaceChildren(...moves.map(bubble).reverse());
  if (question) at('text').focus();
  document.documentElement.dataset.version = now.version;
}

const choice = (text) => el('button', { type: 'button', onclick: () => play(text) }, text);

async function play(text) {
  if (!shown.question || !text.trim()) return;
  const { number } = shown.question;
  at('text').value = '';
  await post('/answer', { number, text });
}

function asking({ rules, observation, feedback, public: position, legal, seat }) {
  const board = boardOf(position, '');
  if (board) makeClickable(board, position, legal || []);
  return [
    el('p', { class: 'said rules' }, rules),
    feedback && el('p', { class: 'why' }, feedback),
    board || el('p', { class: 'said' }, observation),
    el('p', { class: 'rules' }, board ? observation.split('\n').pop() : `You have seat ${seat}.`),
  ].filter(Boolean);
}

// a free cell of the board answers for itself: "(row,column)" or, where marks fall, its column
function makeClickable(board, position, legal) {
  const columns = Array.isArray(position[0]) ? position[0][2] : 3;
  board.querySelectorAll('rect').forEach((cell, i) => {
    const row = Math.floor(i / columns) + 1, column = (i % columns) + 1;
    const answer = [`(${row},${column})`, `${column}`].find((a) => legal.includes(a));
    if (!answer) return;
    cell.classList.add('free');
    cell.addEventListener('click', () => play(answer));
  });
}

function ending({ sentence, last, public: position, thoughts }) {
  return [
    el('p', { class: 'verdictline' }, sentence),
    boardOf(position, '') || el('p', { class: 'said' }, last),
    thoughts.length > 0 && el('div', {}, el('p', { class: 'rules' }, 'What the model thought:'), thoughts.map((t) => el('p', { class: 'think' }, `${t.answer}: ${t.thought}`))),
  ].filter(Boolean);
}

function bubble(move) {
  return el('div', { class: move.mine ? 'move mine' : 'move' },
    el('span', { class: 'who' }, `${move.mine ? 'you' : 'the model'} (seat ${move.seat})`),
    move.prompt && el('p', { class: 'told' }, move.prompt),
    move.thought && el('p', { class: 'think' }, move.thought),
    el('p', { class: 'answer' }, move.answer),
    move.feedback && el('p', { class: 'feedback' }, move.feedback));
}

at('form').addEventListener('submit', (event) => { event.preventDefault(); play(at('text').value); });
at('new').addEventListener('click', () => post('/new', {}));
follow();
