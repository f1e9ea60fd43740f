"""The evaluation core's throughput against plain ``LLM.generate`` on the same prompts with the same sampling.

Both take turns in one process with the same engine settings; the core's time has prompts built, replies read,
graded and written. The laptop model is used: the smaller the model, the more weighs what the core adds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET = 0.9
QUESTIONS, TOKENS, REPEATS = 256, 48, 5


def make_rows(count: int) -> list[dict[str, Any]]:
    """Multiple-choice questions of unequal length."""
    return [
        {"question": f"Question {i}: " + "which of these numbers is even? " * (1 + i % 4), "subject": "numbers",
         "choices": [str(4 * i + k) for k in (1, 2, 3, 5)], "answer": 1}
        for i in range(count)
    ]  # fmt: skip


def run() -> list[dict[str, Any]]:
    """One row: the core's requests a second as a share of ``LLM.generate``'s."""
    from ragen.eval.choice import MMLU, ChoiceBenchmark
    from ragen.eval.cli import Settings
    from ragen.eval.data import Rows
    from ragen.eval.load import make_replier
    from ragen.eval.prompts import Template
    from ragen.eval.questions import evaluate_questions

    model = str(Path(__file__).resolve().parents[1] / "assets" / "starter")
    bench = ChoiceBenchmark(MMLU, Rows(make_rows(QUESTIONS), {"hash": "bench"}), Template())
    seconds: dict[str, list[float]] = {"core": [], "plain": []}
    cpu: dict[str, list[float]] = {"core": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            folder, model_path=model, max_tokens=TOKENS, temperature=1.0, max_model_len=1024, gpu_memory_utilization=0.4
        )
        replier = make_replier(settings)
        plain = _plain(model, 1024)
        for repeat in range(REPEATS + 1):
            for name in seconds:
                start, busy = time.perf_counter(), time.process_time()
                if name == "core":
                    evaluate_questions(bench, Settings(**{**vars(settings), "output": f"{folder}/{repeat}"}), replier)
                else:
                    _generate(plain, replier.chat, bench, settings)
                if repeat:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - busy)
        replier.close()
    core, bare = (statistics.median(seconds[name]) for name in ("core", "plain"))
    used = statistics.median(cpu["plain"]) / statistics.median(cpu["core"])  # tells more where others keep the machine busy
    speed = f"{QUESTIONS / core:.0f} replies/s against {QUESTIONS / bare:.0f}, by CPU time {used:.2f}"
    detail = f"{speed}; {QUESTIONS} questions, up to {TOKENS} tokens each"
    return [{"name": "evaluation core against LLM.generate", "ratio": bare / core, "target": TARGET, "detail": detail}]


def _plain(model: str, length: int):
    import torch
    from vllm import LLM

    gpu = torch.cuda.is_available()
    options = (
        {}
        if gpu
        else {"kv_cache_memory_bytes": 256 * 2**20, "block_size": 32, "enforce_eager": True, "enable_chunked_prefill": False}
    )
    return LLM(
        model, dtype="bfloat16" if gpu else "float32", max_model_len=length, max_num_seqs=256, gpu_memory_utilization=0.4,
        max_num_batched_tokens=8192, enable_prefix_caching=True, generation_config="vllm", disable_log_stats=True, **options,
    )  # fmt: skip


def _generate(llm, chat, bench, settings) -> list[str]:
    """The same prompts, seeds and stops through vLLM's own entry point; nothing read or written."""
    from vllm import SamplingParams

    from ragen.llm_agent.episode import request_seed

    llm.reset_prefix_cache()
    prompts = [{"prompt_token_ids": chat.prompt(q.turns)} for q in bench.questions]
    params = [
        SamplingParams(
            max_tokens=settings.max_tokens, temperature=settings.temperature, stop_token_ids=list(chat.stop_ids), ignore_eos=True,
            seed=request_seed(settings.seed, "eval", bench.name, q.id, 0),
        )
        for q in bench.questions
    ]  # fmt: skip
    return [out.outputs[0].text for out in llm.generate(prompts, params, use_tqdm=False)]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']}: {row['ratio']:.2f} (target {row['target']}); {row['detail']}")
