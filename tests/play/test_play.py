"""A person against a model: the training's prompts, secrets kept, the terminal and the page."""

import http.client
import json
import re
import threading

import pytest
from ragen_tokenizers import TOKENIZERS
from toy_engine import ScriptedEngine

from ragen.env import make_env
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.play.game import Opponent, Stopped, Table, play_game
from ragen.play.terminal import TerminalTable
from ragen.play.web import PlayServer, WebTable, build_page

EVIL = "</script><script>window.evil=1</script><img src=x onerror=window.evil=1>"


@pytest.fixture(scope="module")
def tokenizer():
    return TOKENIZERS["chatml-bpe"]()


def opponent(tokenizer, say):
    """A model that replies ``say(prompt text)``."""

    def write(prompt, params):
        return tokenizer(say(tokenizer.decode(prompt)), add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    engine = ScriptedEngine(write)
    return Opponent(engine, ChatTokens(tokenizer), {"max_tokens": 600}), engine


def first_free(prompt, thought="hm"):
    board = prompt[prompt.rindex("(1,1)") :]
    cell = next(f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in board)
    return f"<think>{thought}</think><answer>{cell}</answer>"


def tictactoe(**config):
    return make_env("tictactoe", {"opening_moves": 0, **config})


def terminal(*typed, **options):
    lines, said = iter(typed), []
    return TerminalTable(lambda prompt: next(lines), said.append, **options), said


# -- the game -------------------------------------------------------------------------------------


def test_a_game_in_the_terminal_is_played_to_its_end(tokenizer):
    model, engine = opponent(tokenizer, first_free)
    # the person is O: a row through the middle, while the model fills the first row
    table, said = terminal("nonsense", "(2,1)", "", "(2,2)", "(2,3)")
    result = play_game(tictactoe(trained_seat="second"), "tictactoe", 3, model, table)
    assert result.sentence == "You win." and result.person.success and not result.model.success
    told = "\n".join(said)
    assert told.count("The model (seat 1) answers (1,") == 2
    assert "not a cell" in told and "Your move, O." in told  # the refusal, and another try
    assert told.index("What it thought") > told.index("You win.")
    assert "Your move" not in result.last
    # the model sees the prompts of training: rules, form, board, in one growing conversation
    first, second = (tokenizer.decode(prompt) for prompt in engine.prompts)
    assert "Reply as <think>" in first and second.startswith(first)


def test_the_model_may_lose_its_way_and_the_person_is_told(tokenizer):
    model, _ = opponent(tokenizer, lambda prompt: "I do not know this form")
    table, said = terminal()
    result = play_game(tictactoe(trained_seat="first"), "tictactoe", 0, model, table)
    assert "used up its turns" in result.sentence
    assert "I do not know this form" in "\n".join(said) and "not in the form" in "\n".join(said)


def test_thoughts_at_once_on_request(tokenizer):
    model, _ = opponent(tokenizer, first_free)
    table, said = terminal("q", show_thoughts=True)
    with pytest.raises(Stopped):
        play_game(tictactoe(trained_seat="first"), "tictactoe", 0, model, table)
    assert said[0] == "The model thinks: hm"


def test_a_game_for_one_is_watched(tokenizer):
    model, _ = opponent(tokenizer, lambda prompt: "<think></think><answer>1</answer>")
    table, said = terminal()
    result = play_game(make_env("bandit"), "bandit", 0, model, table)
    assert result.person is None and re.match(r"The model (succeeded|did not succeed)\.", result.sentence)
    assert "The model is told:" in said[0]


class Notes(Table):
    def __init__(self):
        self.views, self.moves = [], []

    def ask(self, view):
        self.views.append(view)
        return view.legal[0] if view.legal else "it is a thing"

    def moved(self, move):
        self.moves.append(move)

    def over(self, result):
        self.result = result


def test_nothing_secret_reaches_the_person_before_the_end(tokenizer):
    def spy(prompt):
        vote = "vote" in prompt[prompt.rindex("<|im_start|>user") :].lower()
        suspect = "Player 2" if "You are Player 1" in prompt else "Player 1"
        return f"<think>secret</think><answer>{suspect if vote else 'of use'}</answer>"

    env, notes = make_env("undercover"), Notes()
    model, _ = opponent(tokenizer, spy)
    play_game(env, "undercover", 5, model, notes)
    person = next(s for s in range(4) if s not in env.trained_seats)
    assert {m.seat for m in notes.moves} == {0, 1, 2, 3} and {m.seat for m in notes.moves if m.mine} == {person}
    assert [m for m in notes.moves if m.prompt] == []
    votes = notes.moves[8:]
    assert len(votes) >= 4 and len(notes.views) == 3  # two descriptions and a vote, which is shown once all are in
    shown = json.dumps([[v.rules, v.observation, repr(v.public)] for v in notes.views])
    assert env.hidden(person)
    for secret in env.hidden(person):
        assert not re.search(rf"\b{re.escape(secret)}\b", shown)


def test_a_nest_moves_on_with_the_person(tokenizer):
    games = [{"env_type": "bandit", "max_turn": 1}, {"env_type": "tictactoe", "env_config": {"opening_moves": 0}}]
    nest = make_env("compose_new", {"base_env_list": games})
    model, _ = opponent(tokenizer, lambda p: first_free(p) if "(1,1)" in p else "<think></think><answer>1</answer>")

    class LastFree(Notes):
        def ask(self, view):
            self.views.append(view)
            return view.legal[-1]

    notes = LastFree()
    result = play_game(nest, "compose_new", 1, model, notes)
    assert notes.views and all(v.env_type == "tictactoe" for v in notes.views)
    assert notes.moves[0].prompt and not any(m.prompt for m in notes.moves[1:])
    assert result.person is not None


def test_the_person_s_result_of_a_nest_is_over_all_its_games(tokenizer):
    """The last game is for one and the model's seats differ: the person is paid for the boards alone."""
    tasks = [{"env_type": "tictactoe", "env_config": {"opening_moves": 0, "trained_seat": s}} for s in ("first", "second")]
    nest = make_env("compose_new", {"base_env_list": [*tasks, {"env_type": "bandit", "max_turn": 1}]})
    model, _ = opponent(tokenizer, lambda p: first_free(p) if "(1,1)" in p[p.rfind("Task") :] else "<think></think><answer>1</answer>")

    class LastFree(Notes):
        def ask(self, view):
            return view.legal[-1]

    result = play_game(nest, "compose_new", 3, model, LastFree())
    boards = [board.outcome() for board in nest.envs[:2]]
    assert result.person.reward == (boards[0][1].reward + boards[1][0].reward) / 2
    assert result.person.success == (boards[0][1].success and boards[1][0].success)


# -- the page -------------------------------------------------------------------------------------


@pytest.fixture
def served(tokenizer):
    """A page on which games go on, as ``python -m ragen.play --serve`` has it."""
    table = WebTable()
    server = PlayServer(table, f"tictactoe against {EVIL}", 0)
    model, _ = opponent(tokenizer, lambda prompt: first_free(prompt, EVIL))
    ended = threading.Event()

    def games():
        while not ended.is_set():
            table.clear()
            try:
                play_game(tictactoe(trained_seat="second"), "tictactoe", 0, model, table)
                table.wait_for_new()
            except Stopped:
                continue

    threads = [threading.Thread(target=target, daemon=True) for target in (games, server.serve_forever)]
    for thread in threads:
        thread.start()
    yield server
    ended.set()
    table.new_game()
    server.shutdown()
    server.server_close()
    threads[0].join(10)
    assert not threads[0].is_alive()


def call(server, method, path, body=None, **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {
        "Host": f"localhost:{port}",
        "Content-Type": "application/json",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    connection.request(method, path, body if body is None or isinstance(body, str) else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def state(server, known=0):
    return json.loads(call(server, "GET", f"/state?known={known}")[1])


def until_asked(server):
    now = state(server)
    while now["question"] is None and now["result"] is None:
        now = state(server, now["version"])
    return now


def answer(server, text):
    now = until_asked(server)
    return json.loads(call(server, "POST", "/answer", {"number": now["question"]["number"], "text": text})[1])["taken"], now


def test_a_game_over_the_page_s_requests(served):
    taken, before = answer(served, "(2,1)")
    assert taken and before["question"]["public"] == [".........", "O"] and len(before["question"]["legal"]) == 9
    # the same answer again, as of a second tab, comes too late
    late = call(served, "POST", "/answer", {"number": before["question"]["number"], "text": "(2,2)"})
    assert json.loads(late[1]) == {"taken": False}
    for text in ("(2,2)", "(2,3)"):
        while until_asked(served)["version"] == before["version"]:
            pass
        taken, before = answer(served, text)
        assert taken
    now = state(served)
    while now["result"] is None:
        now = state(served, now["version"])
    assert now["result"]["sentence"] == "You win."
    assert [m["thought"] for m in now["moves"]] == [""] * 5 and now["result"]["thoughts"][0]["thought"] == EVIL
    call(served, "POST", "/new", {})
    while state(served)["game"] == now["game"]:
        pass
    assert until_asked(served)["moves"] == []


def test_only_the_own_page_may_look_and_play(served):
    port = served.server_address[1]
    assert served.server_address[0] == "127.0.0.1"
    assert call(served, "GET", "/", Host="evil.example")[0] == 403
    assert call(served, "POST", "/new", {}, Host="evil.example")[0] == 403
    assert call(served, "POST", "/new", {}, Origin="http://evil.example")[0] == 403
    assert call(served, "POST", "/new", "{}", Content_Type="text/plain")[0] == 403
    assert call(served, "POST", "/new", {}, Origin=f"http://localhost:{port}")[0] == 200
    assert call(served, "POST", "/answer", "no json")[0] == 400
    assert call(served, "POST", "/answer", {"number": "x", "text": ["y"]})[1] == '{"taken": false}'
    assert call(served, "POST", "/answer", "1" * 90_000)[0] == 413
    assert call(served, "GET", "/../secret")[0] == 404


def test_the_page_loads_nothing_and_escapes_its_title():
    page = build_page(EVIL)
    assert EVIL not in page and "&lt;script&gt;window.evil" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page) and "{{" not in page
    assert page.count("<script>") == 1 and "innerHTML" not in page and "insertAdjacentHTML" not in page


def test_a_taken_port_is_named(served):
    with pytest.raises(OSError, match="give another with --serve"):
        PlayServer(WebTable(), "x", served.server_address[1])


# -- the command ----------------------------------------------------------------------------------


def test_the_command_plays_the_starter_model(monkeypatch, capsys):
    from ragen.play.__main__ import main

    typed = iter(["(1,1)", "(1,1)", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    arguments = ["--model_path", "assets/starter", "--env", "tictactoe", "--engine", "hf", "--config", "opening_moves=0"]
    assert main([*arguments, "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "The model (seat" in said and said.rstrip().endswith("Stopped.")


def test_the_command_serves_game_after_game_until_interrupted(tokenizer, monkeypatch, capsys):
    from types import SimpleNamespace

    from ragen.eval import load
    from ragen.play.__main__ import main

    model, engine = opponent(tokenizer, lambda prompt: "<think></think><answer>1</answer>")
    closed, wishes = [], iter([None, KeyboardInterrupt])
    replier = SimpleNamespace(engine=engine, chat=model.chat, close=lambda: closed.append(True))
    monkeypatch.setattr(load, "make_replier", lambda settings: replier)

    def wait_for_new(table):
        state = table.state(0)
        assert state["result"] and state["moves"] and state["game"] in (1, 2)
        if wish := next(wishes):
            raise wish

    monkeypatch.setattr(WebTable, "wait_for_new", wait_for_new)
    assert main(["--model_path", "runs/merged", "--env", "bandit", "--serve", "0"]) == 130
    assert re.search(r"http://localhost:\d+", capsys.readouterr().out) and closed
    assert len(engine.seeds) == 12 and len(set(engine.seeds)) == 12  # two games of six pulls, the second of another seed


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--env", "tictactoo"], "tictactoe"),
        (["--env", "tictactoe", "--config", "opening_move=0"], "opening_moves"),
        (["--env", "tictactoe", "--config", "opening_moves"], "KEY=VALUE"),
        (["--env", "tictactoe"], "there is no folder ./nowhere"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_loaded(arguments, names, capsys):
    from ragen.play.__main__ import main

    assert main(["--model_path", "./nowhere", *arguments]) == 2
    assert names in capsys.readouterr().err
