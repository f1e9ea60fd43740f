"""The conformance checker: every game here passes, and each broken clause is caught."""

import random

import pytest

from ragen.env import make_env
from ragen.env.base import Env, Outcome, SeatOutcome, SoloEnv, Verdict
from ragen.env.conformance import ContractError, check_env_contract

GAMES = {
    "tictactoe": {},
    "nash_new": {},
    "math_lv3to5": {"source": "embedded"},
    "connect_four": {},
    "bandit": {},
    "countdown": {},
    "frozen_lake": {"slippery": True},
    "sokoban": {"boxes": 2},
    "mmlu": {},
}


#: replies of games that do not list their answers
REPLIES = {"countdown": lambda env, seat, rng: env.solution}


@pytest.mark.parametrize("env_type", GAMES)
def test_every_game_keeps_the_contract(env_type):
    make = lambda: make_env(env_type, GAMES[env_type])
    report = check_env_contract(make, seeds=range(6), must_end=True, replies=REPLIES.get(env_type))
    assert report.games == 6 and report.refused > 0


class Guess(SoloEnv):
    """A number from 1 to 3; two tries. Right in every clause, and the base of the broken ones."""

    def start(self, rng):
        self.secret, self.left = rng.randint(1, 3), 2
        return f"Guess 1, 2 or 3 (starts with {rng.randint(1, 9)})."

    def legal(self, seat):
        return ("1", "2", "3") if self.left else ()

    def play(self, action):
        if action not in ("1", "2", "3"):
            return self._obs, -0.1, False, {"valid": False, "feedback": "no"}
        self.left -= 1
        right = action == str(self.secret)
        return f"{self.left} left", float(right), right or not self.left, {"success": right}


class DrawsGlobally(Guess):
    def start(self, rng):
        random.random()
        return super().start(rng)


class ForgetsItsSeed(Guess):
    count = 0

    def start(self, rng):
        ForgetsItsSeed.count += 1
        super().start(rng)
        return f"Guess. This is game {ForgetsItsSeed.count}."


class IgnoresItsSeed(Guess):
    def start(self, rng):
        super().start(rng)
        return "Guess."


class KeepsOldState(Guess):
    def reset(self, *, seed=None, options=None):
        kept = getattr(self, "left", 2)
        result = super().reset(seed=seed)
        self.left = max(1, kept) if kept != 2 else 2
        self._obs += f" {self.left}"
        return result


class RefusedReplyCounts(Guess):
    def play(self, action):
        if action not in ("1", "2", "3"):
            return self._obs + " again", -0.1, False, {"valid": False}
        return super().play(action)


class RefusesALegalAnswer(Guess):
    def legal(self, seat):
        return ("1", "2", "3", "4")


class Raises(Guess):
    def play(self, action):
        return super().play(str(int(action)))


class NotPicklable(Guess):
    def __init__(self):
        super().__init__()
        self.callback = lambda: None


class SharedState(Guess):
    hits = []

    def play(self, action):
        self.hits.append(action)
        return super().play(action)

    def public(self, seat):
        return len(self.hits)


class UnstablePublic(Guess):
    def public(self, seat):
        return object()


class LookingChangesIt(Guess):
    looks = 0

    def observe(self, seat):
        self.looks += 1
        return f"{self._obs} {self.looks}"


class WinsAtOnce(Guess):
    def outcome(self):
        return Outcome((SeatOutcome(0.0, True),))


class NanReward(Guess):
    def play(self, action):
        obs, reward, done, info = super().play(action)
        return obs, float("nan") if info.get("valid", True) else reward, done, info


class TooManySeats(Guess):
    def outcome(self):
        return Outcome((SeatOutcome(0.0, False), SeatOutcome(0.0, False)))


class Leaks(Guess):
    def hidden(self, seat):
        return (f"secret {self.secret}",)

    def rules(self, seat):
        return f"The Secret {self.secret} is yours to find."


class NeverEnds(Guess):
    def play(self, action):
        self.left = 9
        obs, reward, _, info = super().play(action)
        return obs, reward, False, info


class ActsOutOfTurn(Env):
    """Two seats; does not check whose turn it is."""

    seats = 2

    def reset(self, *, seed):
        self.seed, self.said = seed, []

    def acting(self):
        return () if len(self.said) > 3 else (len(self.said) % 2,)

    def observe(self, seat):
        return f"{self.seed} {self.said}"

    def act(self, seat, text):
        self.said.append(text)
        return Verdict(True, True)

    def outcome(self):
        return Outcome((SeatOutcome(0.0, False),) * 2)


def test_a_sound_env_passes():
    report = check_env_contract(Guess, seeds=range(8), must_end=True)
    assert report.ended == 8


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (DrawsGlobally, "global random state of random"),
        (ForgetsItsSeed, "two envs with seed"),
        (IgnoresItsSeed, "start alike"),
        (KeepsOldState, "played other seeds before"),
        (RefusedReplyCounts, "leave the state"),
        (RefusesALegalAnswer, "act refuses it"),
        (Raises, "raised ValueError"),
        (NotPicklable, "pickled"),
        (SharedState, "differ"),
        (UnstablePublic, "unstable repr|pickling"),
        (LookingChangesIt, "looking twice|differ"),
        (WinsAtOnce, "before the first move"),
        (NanReward, "finite number"),
        (TooManySeats, "2 seats of 1"),
        (Leaks, "may not know"),
        (NeverEnds, "not over"),
        (ActsOutOfTurn, "raised no ValueError"),
    ],
    ids=lambda x: x.__name__ if isinstance(x, type) else "",
)
def test_each_broken_clause_is_caught(broken, message):
    with pytest.raises(ContractError, match=message):
        check_env_contract(broken, seeds=range(4), max_turns=10, must_end=broken is NeverEnds)
