"""A budget of thought, and replies at their limit: what is sampled, what is given, what is trained."""

import json
import random

import pytest
import torch
from chat_families import keeps, r1
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engine import ScriptedEngine
from transformers import LlamaConfig, LlamaForCausalLM

from ragen.llm_agent.agent_proxy import AgentProxy
from ragen.llm_agent.batch import build_batch
from ragen.llm_agent.ctx_manager import ChatTokens
from ragen.llm_agent.episode import EpisodeLimits, Sampling
from ragen.llm_agent.es_manager import deal_groups, deal_to_ranks, read_tags
from ragen.llm_agent.overlong import OverlongRule
from ragen.llm_agent.thinking import closing
from ragen.llm_agent.trajectory import Sample, Trajectory, Turn
from ragen.players.factory import PlayerFactory
from ragen.trainer.rollout_metrics import rollout_metrics
from ragen.trainer.thoughts import thought_of
from ragen.trainer.trajectory_log import TrajectoryLog
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.workers.rollout.hf_rollout import HFEngine

TAGS = {"T": {"env_type": "tictactoe", "env_config": {"opening_moves": 0, "player_info": [{"type": "scripted", "name": "random"}]}}}
ROOM = 6000


def play(tokenizer, engine, max_tokens=90, games=1, **limits):
    chat = ChatTokens(tokenizer)
    proxy = AgentProxy([engine], chat, PlayerFactory(), EpisodeLimits(**{"max_turn": 5, "max_model_len": engine.max_model_len, **limits}))
    dealt = deal_groups(base_seed=3, phase="train", step=2, tags=read_tags(TAGS, "train"), plays=[("T", games)], group_size=1)
    return proxy.play(deal_to_ranks(dealt, 1)[0], read_tags(TAGS, "train"), Sampling((3, "train", 2), max_tokens))


def thinker(tokenizer, thought_tokens, opens=False, closes=True):
    """Thinks for a number of tokens, then takes the first free cell; once its thought is closed for it, answers at once."""
    chat = ChatTokens(tokenizer)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    given, thought = closing(chat), (ids("la ") * thought_tokens)[:thought_tokens]

    def write(prompt, params):
        text = tokenizer.decode(prompt)
        board = text[text.rindex("(1,1)") :]
        cell = next(f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3) if f"({r},{c})-" in board)
        end = ids(f"{cell}</answer>") + [chat.stop_ids[0]]
        if prompt[-len(given) :] == given:
            return end
        begin = [] if opens else ids("<think>")
        return begin + thought + (given + end if closes else ids("la ") * 999)

    return write


def checked(tokenizer, engine_prompts, trajectory):
    """What holds of every trajectory; returns its one sample."""
    (sample,) = trajectory.samples
    assert len(sample.ids) == len(sample.mask) == len(sample.logprobs)
    assert all(p == 0.0 for p, m in zip(sample.logprobs, sample.mask, strict=True) if not m)
    assert all(p < 0.0 for p, m in zip(sample.logprobs, sample.mask, strict=True) if m)
    for turn in sample.turns:
        inside = sample.mask[turn.start : turn.end]
        assert inside[0] and inside[-1] and inside.count(False) == turn.given and sum(inside) == turn.sampled_tokens
    for prompt in engine_prompts:  # whatever was sampled, was sampled after what now stands before it
        assert prompt == sample.ids[: len(prompt)]
    return sample


@pytest.mark.parametrize("make, opens", [(None, False), (keeps, True)])
def test_a_thought_over_its_budget_is_closed_and_the_answer_is_sampled(make, opens, chatml):
    tokenizer = make() if make else chatml
    engine = ScriptedEngine(thinker(tokenizer, 60, opens), ROOM)
    (trajectory,) = play(tokenizer, engine, max_think_tokens=20)
    sample = checked(tokenizer, engine.prompts, trajectory)
    given = closing(ChatTokens(tokenizer))
    assert trajectory.status == "finished" and trajectory.turns
    for turn in trajectory.turns:
        assert turn.valid and not turn.cut_at_limit and turn.given == len(given)
        assert sample.ids[turn.start + 20 : turn.start + 20 + len(given)] == given
        assert not any(sample.mask[turn.start + 20 : turn.start + 20 + len(given)])
        assert turn.reply.startswith("<think>") and "</think>" in turn.reply
    assert len(set(engine.seeds)) == len(engine.seeds) == 2 * len(trajectory.turns)
    assert rollout_metrics([trajectory])["rollout/thought_cut"] == 1.0
    assert rollout_metrics([trajectory])["rollout/gen_tokens"] == sum(sample.mask)
    batch = build_batch([trajectory], 0).batch
    mask, index, scores = batch["response_mask"][0], batch["turn_index"][0], batch["token_level_scores"][0]
    assert batch["responses"][0][mask].tolist() == [i for i, m in zip(sample.ids, sample.mask, strict=True) if m]
    assert ((index >= 0) == mask).all() and int(index.max()) == len(trajectory.turns) - 1
    assert mask[scores != 0].all() and float(scores.sum()) == pytest.approx(trajectory.reward)


def test_replies_within_the_budget_are_what_they_are_without_one(chatml):
    runs = []
    for budget in (None, 30):
        engine = ScriptedEngine(thinker(chatml, 10), ROOM)
        (trajectory,) = play(chatml, engine, max_think_tokens=budget)
        runs.append((engine.prompts, engine.seeds, trajectory.samples, trajectory.reward))
    assert runs[0] == runs[1]


def test_an_answer_that_was_begun_goes_on_without_a_word_given(chatml):
    """The first request ends within the answer: nothing is inserted."""
    budget = len(chatml("<think>la la </think><answer>(", add_special_tokens=False)["input_ids"])
    write = thinker(chatml, len(chatml("la la ", add_special_tokens=False)["input_ids"]))

    def goes_on(prompt, params):
        whole = write(asked[0], params) if asked else write(prompt, params)
        asked.append(prompt)
        return whole[len(prompt) - len(asked[0]) :]

    asked = []
    engine = ScriptedEngine(goes_on, ROOM)
    (trajectory,) = play(chatml, engine, max_think_tokens=budget, max_turn=1)
    (turn,) = trajectory.turns
    assert len(engine.prompts) == 2 and turn.given == 0 and turn.valid and all(trajectory.samples[0].mask[turn.start : turn.end])


def test_a_reply_that_is_no_thought_is_not_led_anywhere(chatml):
    engine = ScriptedEngine(lambda prompt, params: chatml("la " * 400, add_special_tokens=False)["input_ids"], ROOM)
    (trajectory,) = play(chatml, engine, max_tokens=50, max_think_tokens=10, max_turn=2)
    for turn in trajectory.turns:
        assert not turn.valid and turn.cut_at_limit and turn.given == 0 and turn.end - turn.start == 50


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 60), st.integers(0, 120), st.booleans(), st.integers(0, 40))
def test_limits_hold_whatever_they_are(budget, max_tokens, thought, closes, spare):
    """No reply is longer than its limit, no prompt with its reply longer than the model, given tokens included."""
    tokenizer = _keeps()
    first = ScriptedEngine(thinker(tokenizer, thought, opens=True), ROOM)
    play(tokenizer, first, max_turn=1)
    room = len(first.prompts[0]) + 1 + spare
    engine = ScriptedEngine(thinker(tokenizer, thought, opens=True, closes=closes), room)
    (trajectory,) = play(tokenizer, engine, max_tokens=max_tokens, max_think_tokens=budget)
    sample = checked(tokenizer, engine.prompts, trajectory)
    assert len(sample.ids) <= room
    for turn in trajectory.turns:
        assert turn.end - turn.start <= max_tokens
        if turn.given:
            thought_ids = sample.mask[turn.start : turn.end].index(False)
            assert 1 <= thought_ids <= budget


_made = []


def _keeps():
    if not _made:
        _made.append(keeps())
    return _made[0]


def test_log_probabilities_are_those_of_the_model_over_the_very_sequence(tmp_path):
    """A real engine, a real model: the trainer's forward over a trajectory with given tokens finds what the engine recorded."""
    tokenizer = r1()
    torch.manual_seed(5)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, bos_token_id=None, eos_token_id=1, **sizes))
    model.eval().save_pretrained(tmp_path)
    trajectories = play(tokenizer, HFEngine(str(tmp_path), max_model_len=1500), max_tokens=64, max_think_tokens=16, max_turn=2, games=3)
    assert any(turn.given for t in trajectories for turn in t.turns)
    for sample in (s for t in trajectories for s in t.samples):
        with torch.no_grad():
            log_probs = model(torch.tensor([sample.ids])).logits[0].log_softmax(-1)
        found = log_probs[torch.arange(len(sample.ids) - 1), torch.tensor(sample.ids[1:])]
        mask = torch.tensor(sample.mask[1:])
        assert torch.allclose(found[mask], torch.tensor(sample.logprobs[1:])[mask], atol=2e-5)


def test_a_turn_with_given_tokens_is_one_turn_to_the_turns_estimator():
    """Bi-level GAE: tokens given within a turn end none. With none given, the index changes nothing."""
    rng = random.Random(4)
    rewards, values = (torch.tensor([[rng.uniform(-1, 1) for _ in range(9)]], dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[1, 1, 0, 1, 1, 0, 0, 1, 1]]).bool()
    rewards = torch.where(mask, rewards, 0.0)
    estimate = get_adv_estimator_fn("bi_level_gae")
    kwargs = {"gamma": 0.9, "lam": 0.8, "high_level_gamma": 0.7}
    two_turns = torch.tensor([[0, 0, -1, 0, 0, -1, -1, 1, 1]])
    three_turns = torch.tensor([[0, 0, -1, 1, 1, -1, -1, 2, 2]])
    _, by_mask = estimate(rewards, values, mask, **kwargs)
    _, as_three = estimate(rewards, values, mask, turn_index=three_turns, **kwargs)
    assert torch.equal(by_mask, as_three)
    _, as_two = estimate(rewards, values, mask, turn_index=two_turns, **kwargs)
    places = [0, 1, 3, 4, 6, 7, 8]  # the same row without the given token
    _, closed_up = estimate(rewards[:, places], values[:, places], mask[:, places], turn_index=two_turns[:, places], **kwargs)
    assert torch.allclose(as_two[:, places][mask[:, places]], closed_up[mask[:, places]])
    assert not torch.allclose(as_two[mask], by_mask[mask])


def test_the_reasoning_of_a_reply_that_the_prompt_opened_is_found():
    tokenizer = r1()
    text = "a b c</think><answer>d</answer>"
    prompt, reply = tokenizer("q<think>\n")["input_ids"], tokenizer(text)["input_ids"]
    sample = Sample(prompt + reply, [False] * len(prompt) + [True] * len(reply), [0.0] * len(prompt + reply))
    turn = Turn(len(prompt), len(prompt + reply), "<think>\n" + text, opening="<think>\n")
    thought = thought_of(sample, turn, lambda i: tokenizer.decode([i]))
    assert tokenizer.decode(list(thought.tokens)) == "a b c" and list(thought.prompt) == prompt == list(thought.asked)
    turn.opening = ""
    assert thought_of(sample, turn, lambda i: tokenizer.decode([i])) is None


# -- overlong replies ----------------------------------------------------------------------------------


def endless(tokenizer, bad_turn):
    """Keeps the form, but for one reply that never ends."""
    count = iter(range(10**6))
    write = thinker(tokenizer, 5)

    def reply(prompt, params):
        return tokenizer("la " * 400, add_special_tokens=False)["input_ids"] if next(count) == bad_turn else write(prompt, params)

    return reply


@pytest.mark.parametrize("bad", [0, 1])
def test_an_overlong_reply_is_kept_masked_or_penalised(bad, chatml, tmp_path):
    runs = {}
    for mode in ("keep", "mask", "penalise"):
        rule = OverlongRule(mode, 0, 0.75)
        (runs[mode],) = play(chatml, ScriptedEngine(endless(chatml, bad), ROOM), overlong=rule, max_turn=6)
    kept, masked, penalised = runs["keep"], runs["mask"], runs["penalise"]
    assert [turn.cut_at_limit for turn in kept.turns] == [i == bad for i in range(len(kept.turns))]
    rows = {mode: build_batch([t], 0).batch for mode, t in runs.items()}
    cut = kept.turns[bad]
    inside = torch.zeros_like(rows["keep"]["response_mask"])
    inside[0, cut.start - 1 : cut.end - 1] = True
    assert torch.equal(rows["mask"]["response_mask"], rows["keep"]["response_mask"] & ~inside)
    assert masked.reward == kept.reward and torch.equal(rows["mask"]["token_level_scores"], rows["keep"]["token_level_scores"])
    assert torch.equal(rows["penalise"]["response_mask"], rows["keep"]["response_mask"])
    assert penalised.turns[bad].reward == pytest.approx(cut.reward - 0.75) and penalised.reward == pytest.approx(kept.reward - 0.75)
    assert penalised.success == kept.success
    log = TrajectoryLog(tmp_path, lambda i: chatml.decode([i]))
    log.write(1, "train", [masked])
    tokens = json.loads((tmp_path / "trajectories" / "train_step_000001.jsonl").read_text())["tokens"]
    assert tokens["trained"][1:] == rows["mask"]["response_mask"][0].int().tolist()
    assert sum(p is not None for p in tokens["logprob"]) == sum(masked.samples[0].mask)


def test_reply_after_reply_overlong_leaves_a_row_without_a_trained_token(chatml):
    (trajectory,) = play(chatml, ScriptedEngine(endless(chatml, 0), ROOM), overlong=OverlongRule("mask"), max_turn=1)
    batch = build_batch([trajectory], 0)
    assert not batch.batch["response_mask"].any() and len(batch) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 500), st.floats(0, 3))
def test_the_soft_punishment_is_dapos(limit, buffer, tokens, factor):
    """DAPO, equation 13: 0 up to L_max - L_cache, then linear to -1 at L_max (here times the factor)."""
    buffer, tokens = min(buffer, limit), min(tokens, limit)
    if tokens <= limit - buffer:
        wanted = 0.0
    else:
        wanted = ((limit - buffer) - tokens) / buffer
    assert -OverlongRule("penalise", buffer, factor).penalty(tokens, False, limit) == pytest.approx(factor * wanted)
    assert OverlongRule("penalise", buffer, factor).penalty(tokens, True, limit) == factor
    assert OverlongRule("mask", buffer, factor).penalty(tokens, True, limit) == 0.0


def test_what_is_not_trained_was_sampled_all_the_same():
    sample = Sample([1, 2, 3], [False, True, True], [0.0, -1.0, -1.0], [Turn(1, 3, "x", trained=False)])
    trajectory = Trajectory("T", 0, 0, 0, 1, 0, samples=[sample])
    assert sample.trained() == [False] * 3 and sample.mask == [False, True, True]
    assert build_batch([trajectory], 0).batch["turn_index"].tolist() == [[0, 0]]
