"""Play against a trained model, in the terminal or on a page of this machine::

    python -m ragen.play --model_path outputs/_0_laptop/merged --env tictactoe
    python -m ragen.play --model_path outputs/_0_laptop/merged --env tictactoe --serve 8766

The model gets the prompts of its training. In a game for one (mathematics, a matrix game) it plays and you watch.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence

from ragen.env import REGISTERED_ENVS, Env, make_env
from ragen.env.terminal import key_value_pairs
from ragen.eval.cli import json_object


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="python -m ragen.play", description=__doc__, formatter_class=raw)
    made.add_argument("--model_path", required=True, help="Hugging Face folder (scripts/merge.sh makes one) or a name of the hub")
    made.add_argument("--env", required=True, metavar="GAME", help=f"one of {', '.join(sorted(REGISTERED_ENVS))}")
    made.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="of the game, e.g. trained_seat=second to move first"
    )
    made.add_argument("--seed", type=int, default=0, help="of the first game; each further one takes the next (default 0)")
    made.add_argument("--serve", type=int, metavar="PORT", help="play on http://localhost:PORT instead (0: any free port)")
    made.add_argument("--show_thoughts", action="store_true", help="the model's thoughts at once, not after the game")
    model = made.add_argument_group("the model")
    model.add_argument(
        "--think", action=argparse.BooleanOptionalAction, default=True, help="as agent_proxy.enable_think in its training"
    )
    model.add_argument("--system_prompt", default="You're a helpful assistant. ", help="as in its training; '' for none")
    model.add_argument("--chat_template_kwargs", type=json_object, metavar="JSON", help="as data.apply_chat_template_kwargs in its training")
    model.add_argument("--temperature", type=float, default=0.5, help="0: always its likeliest reply (default 0.5)")
    model.add_argument("--max_tokens", type=int, default=600, help="most tokens of a reply (default 600)")
    model.add_argument("--max_turn", type=int, default=30, help="replies of the model in a game (default 30)")
    model.add_argument("--engine", choices=("vllm", "hf"), default="vllm", help="hf starts, vllm replies faster (default vllm)")
    model.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32 on a CPU, else bfloat16")
    model.add_argument("--max_model_len", type=int, help="longest conversation, in tokens (default: the model's, at most 8192)")
    model.add_argument("--trust_remote_code", action="store_true")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin make replies slow
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        config = key_value_pairs(args.config)
        make_env(args.env, config)  # a wrong game is named before the model is loaded
        return _play(args, lambda: make_env(args.env, config))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _play(args: argparse.Namespace, new_env: Callable[[], Env]) -> int:
    from ragen.eval.cli import Settings
    from ragen.eval.load import make_replier
    from ragen.play.game import Opponent

    settings = Settings(
        output="", model_path=args.model_path, system_prompt=args.system_prompt, engine=args.engine, dtype=args.dtype,
        max_model_len=args.max_model_len, trust_remote_code=args.trust_remote_code, max_num_seqs=16,
        chat_template_kwargs=args.chat_template_kwargs,
    )  # fmt: skip
    print(f"loading {args.model_path} ...", flush=True)
    model = make_replier(settings)
    sampling = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    opponent = Opponent(model.engine, model.chat, sampling, args.think, args.max_turn)
    try:
        model.chat.check_form(args.think)
        return (_in_terminal if args.serve is None else _on_page)(args, new_env, opponent)
    finally:
        model.close()


def _in_terminal(args: argparse.Namespace, new_env: Callable[[], Env], opponent) -> int:
    from ragen.play.game import Stopped, play_game
    from ragen.play.terminal import TerminalTable

    seed = args.seed
    while True:
        try:
            play_game(new_env(), args.env, seed, opponent, TerminalTable(show_thoughts=args.show_thoughts))
            if input("\nAnother game? [y/N] ").strip().lower() not in ("y", "yes"):
                return 0
        except (Stopped, EOFError):
            print("Stopped.")
            return 0
        seed += 1


def _on_page(args: argparse.Namespace, new_env: Callable[[], Env], opponent) -> int:
    from ragen.play.game import Stopped, play_game
    from ragen.play.web import PlayServer, WebTable

    table = WebTable(args.show_thoughts)
    server = PlayServer(table, f"{args.env} against {os.path.basename(os.path.normpath(args.model_path))}", args.serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://localhost:{server.server_address[1]}  (Ctrl-C ends it)", flush=True)
    seed = args.seed
    try:
        while True:
            table.clear()
            try:
                play_game(new_env(), args.env, seed, opponent, table)
                table.wait_for_new()
            except Stopped:
                pass
            seed += 1
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    raise SystemExit(main())
