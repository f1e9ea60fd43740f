"""Run folders made by code: real games played by dice, metrics of a run that goes well, and three that do not."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import yaml

from ragen.env import make_env

TASKS = {"TicTacToe": ("tictactoe", "random"), "NashNew": ("nash_new", "")}
_TOKEN = re.compile(r"<\|im_\w+\|>|<[^<>\s]{1,12}>|\w+|\s+|.", re.DOTALL)


def write_run(
    folder: Path, *, steps: int = 60, seed: int = 0, fault: str = "", groups: int = 4, members: int = 8,
    tags: tuple[str, ...] = ("TicTacToe", "NashNew"), every: int = 10, tokens: int = 6, evil: str = "", from_step: int = 0,
) -> Path:  # fmt: skip
    """``fault``: "", "broken_mask", "collapsed" or "dead_opponent". ``every``: steps between written
    trajectory files. ``evil``: text put into replies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trajectories").mkdir(exist_ok=True)
    config = {"trainer": {"experiment_name": folder.name, "total_training_steps": steps, "test_freq": 20}, "seed": {"train": seed}}
    config["actor_rollout_ref"] = {"actor": {"optim": {"lr": 1e-3 if fault == "collapsed" else 1e-4}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rng = random.Random(f"{seed}/{fault}")
    with (folder / "metrics.jsonl").open("w") as out:
        for step in range(from_step, steps + 1):
            out.write(json.dumps(metrics_row(step, steps, rng, fault, tags)) + "\n")
    for step in range(0, steps + 1, every):
        for phase in ("val",) if step == 0 else ("train", "val") if step % 20 == 0 else ("train",):
            rows = episodes(step, steps, rng, fault, tags, groups, members, tokens, evil, phase)
            name = folder / "trajectories" / f"{phase}_step_{step:06d}.jsonl"
            name.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_large_run(folder: Path, steps: int = 200) -> Path:
    """200 steps of 128 episodes: the games of one step, told again for each."""
    write_run(folder, steps=steps, groups=16, members=8, every=steps)
    (folder / "trajectories" / f"val_step_{0:06d}.jsonl").unlink()
    last = folder / "trajectories" / f"train_step_{steps:06d}.jsonl"
    text = last.read_text()
    for step in range(1, steps):
        last.with_name(f"train_step_{step:06d}.jsonl").write_text(text.replace(f'"step": {steps},', f'"step": {step},'))
    return folder


def _skill(step: int, steps: int, fault: str) -> float:
    done = step / max(1, steps)
    if fault == "collapsed" and done > 0.5:
        return max(0.02, 0.6 - 3 * (done - 0.5))
    if fault == "broken_mask":
        return 0.45
    return 0.45 + 0.3 * (1 - 0.05 ** done)


def metrics_row(step: int, steps: int, rng: random.Random, fault: str, tags) -> dict:
    skill, done = _skill(step, steps, fault), step / max(1, steps)
    row: dict = {"step": step}
    if step % 20 == 0:
        for i, tag in enumerate(tags):
            win = min(1, max(0, skill - 0.1 * i + rng.gauss(0, 0.01)))
            row |= {f"val/{tag}/success": win, f"val/{tag}/draw": 0.1, f"val/{tag}/loss": max(0, 0.9 - win), f"val/{tag}/reward": win, f"val/{tag}/episodes": 256.0}
        row["timing_s/testing"] = 3.0
    if step == 0:
        return row
    ill, gone = fault == "collapsed" and done > 0.5, 0.45 if fault == "dead_opponent" and done > 0.3 else 0.0
    for i, tag in enumerate(tags):
        win = min(1, max(0, skill - 0.1 * i + rng.gauss(0, 0.03)))
        row |= {f"train/{tag}/{k}": v for k, v in {
            "success": win, "draw": 0.1, "loss": max(0, 0.9 - win), "invalid": 0.6 if ill else 0.02, "unfinished": 0.0,
            "reward": win, "turns": 3.5, "aborted": gone if i == 0 else 0.0}.items()}  # fmt: skip
        if TASKS[tag][1]:
            row[f"train/{tag}/opponent/random/success"] = win
            row[f"train/{tag}/opponent/perfect/success"] = win / 4
    gap = 2.5 if fault == "broken_mask" else 2e-6
    row |= {
        "rollout/reward_mean": skill, "rollout/reward_std_in_group": 0.02 if ill else 0.35, "rollout/groups_total": 16.0,
        "rollout/groups_with_signal": 1.0 if ill else 15.0, "rollout/response_length": 60 + 20 * done, "rollout/truncated": 0.0,
        "rollout/aborted": gone / 2 + gone / 10, "rollout/invalid": 0.6 if ill else 0.02, "rollout/logprob_diff_max": 8 * gap,
        "rollout/logprob_diff_mean": gap, "rollout/gen_tokens": 21000.0, "rollout/episodes": 256.0,
        "actor/entropy": 0.004 if ill else 0.6 - 0.25 * done + rng.gauss(0, 0.005), "actor/pg_loss": rng.gauss(0, 0.02),
        "actor/pg_clipfrac": 0.02, "actor/ppo_kl": 1e-3, "actor/grad_norm": 1 + rng.random(), "actor/lr": 1e-4,
        "timing_s/gen": 2.4, "timing_s/filter": 0.01, "timing_s/old_log_prob": 0.4, "timing_s/adv": 0.02,
        "timing_s/update_actor": 1.9, "timing_s/sync": 0.1, "timing_s/step": 5.0, "perf/throughput": 9000.0, "perf/tokens_per_s": 8700.0,
    }  # fmt: skip
    return row


def episodes(step, steps, rng, fault, tags, groups, members, tokens, evil, phase) -> list[dict]:
    rows = []
    for group in range(groups):
        tag = tags[group % len(tags)]
        for member in range(members):
            row = episode(tag, 1000 * step + group, rng, _skill(step, steps, fault), evil)
            row |= {"step": step, "phase": phase, "tag": tag, "group": group, "member": member, "kept": rng.random() < 0.8}
            if fault == "dead_opponent" and step > 0.3 * steps and tag == "TicTacToe" and rng.random() < 0.45:
                row |= {"status": "aborted", "success": False, "reward": 0.0, "kept": False}
            if len([r for r in rows if r["tokens"]]) < tokens:
                row["tokens"] = token_view(row["messages"], rng, row["reward"], broken=fault == "broken_mask")
            rows.append(row)
    return rows


def episode(tag: str, seed: int, rng: random.Random, skill: float, evil: str) -> dict:
    env_type, opponent = TASKS[tag]
    env = make_env(env_type)
    env.reset(seed=seed)
    seat = env.trained_seats[0]
    messages = [{"role": "system", "content": "You're a helpful assistant."}]
    public, rewards, shown, feedback, turn = [], [], "", "", 0
    while (acting := env.acting()) and turn < 6:
        if acting[0] != seat:
            env.act(acting[0], rng.choice(env.legal(acting[0])))
            continue
        rules = env.rules(seat)
        prompt = (feedback + "\n" if feedback else "") + (rules if rules != shown else "") + env.observe(seat)
        public.append(env.public(seat))
        shown = rules
        answer = rng.choice(env.legal(seat)) if rng.random() < 0.6 + skill / 2 else "(9,9)"
        verdict = env.act(seat, answer)
        feedback = verdict.feedback
        rewards.append(verdict.reward)
        messages += [
            {"role": "user", "content": prompt, "turn": turn},
            {"role": "assistant", "content": f"<think>{evil}I look at the board and pick.</think><answer>{answer}</answer>",
             "turn": turn, "valid": verdict.valid, "feedback": feedback, "reward": verdict.reward},
        ]  # fmt: skip
        turn += 1
    result = env.outcome()[seat]
    rewards[-1] += result.reward
    messages[-1]["reward"] = rewards[-1]
    return {
        "seed": seed, "seat": seat, "role": env.role(seat), "opponent": opponent, "status": "finished" if not env.acting() else "unfinished",
        "reward": sum(rewards), "success": result.success, "metrics": {**result.metrics, "turns": turn}, "turn_rewards": rewards,
        "messages": messages, "public": json.loads(json.dumps(public)), "tokens": None,
    }  # fmt: skip


def token_view(messages: list[dict], rng: random.Random, reward: float, broken: bool) -> dict:
    view: dict = {"text": [], "trained": [], "logprob": [], "advantage": []}
    for message in messages:
        theirs = message["role"] == "assistant"
        for i, text in enumerate(_TOKEN.findall(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n")):
            sampled = theirs and i > 2 and text != "\n"
            view["text"].append(text)
            view["trained"].append(int(sampled or (broken and message["role"] == "user")))
            view["logprob"].append(-abs(rng.gauss(0, 0.7)) if sampled else None)
            view["advantage"].append(reward - 0.5 if sampled else None)
    return view
