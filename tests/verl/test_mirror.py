"""Tensor parallelism's followers see the leader's requests in the leader's order."""

import torch.distributed as dist
import torch.multiprocessing as mp

from verl.workers.rollout.base import Reply, RolloutEngine, SamplingParams
from verl.workers.rollout.mirror import LeadingEngine, follow


class Recorder(RolloutEngine):
    max_model_len = 100

    def __init__(self):
        self.calls, self.waiting = [], []

    def add(self, request_id, prompt_ids, params):
        self.calls.append(("add", request_id, tuple(prompt_ids), params))
        self.waiting.append(request_id)

    def step(self):
        self.calls.append(("step",))
        return [Reply(self.waiting.pop(0), [1], [0.0], False)] if self.waiting else []

    @property
    def unfinished(self):
        return len(self.waiting)

    def load_weights(self, weights):
        pass


def _rank(rank, port_file, queue):
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=3)
    group = dist.new_group([0, 1, 2], backend="gloo")
    engine = Recorder()
    if rank == 0:
        leader = LeadingEngine(engine, group, 0)
        leader.add("a", [1, 2], SamplingParams(3, seed=5))
        leader.step()
        for name in "bc":
            leader.add(name, [7], SamplingParams(2))
        while leader.unfinished:
            leader.step()
        leader.release()
    else:
        follow(engine, group, 0)
    queue.put((rank, engine.calls))
    dist.barrier()
    dist.destroy_process_group()


def test_followers_make_the_leaders_calls(tmp_path):
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_rank, args=(r, tmp_path / "rendezvous", queue)) for r in range(3)]
    for process in processes:
        process.start()
    calls = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(calls[0]) == 6 and calls[0] == calls[1] == calls[2]
