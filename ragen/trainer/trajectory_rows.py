"""A batch seen by trajectory: all that an agent sampled in an episode in one row, however it was cut into samples.

Where a context only grows, a trajectory is one row of the batch; where it does not (a window, a template that strips
thoughts) each turn is a row. Credit must not depend on which: so rewards, values and log-probabilities are joined to one
row a trajectory before anything looks at them, and what was found is put back where it came from.
"""

from __future__ import annotations

import torch

from verl.protocol import DataProto


class TrajectoryRows:
    """Where each position of a batch of ``B`` rows lies in its trajectory.

    A joined row holds, in order, the sampled tokens of its trajectory with one unsampled position between turns, as a row
    of an ever-growing context has; nothing else of the prompts is kept. So both forms of a trajectory give the same joined
    row, and estimators that read turns off the mask find the same turns.

    Args:
        batch: ``response_mask`` (B, T-1), ``turn_index`` (B, T-1) where turns are known (holes in the mask otherwise),
            ``token_level_scores`` (B, T-1); ``non_tensor_batch["traj_id"]`` (B,), rows of a trajectory in order.

    Attributes:
        first: (N,) the first row of each of the N trajectories; ``rows``: N lists of rows.
        of_row: (B,) which trajectory a row belongs to.
        width: positions of the longest joined row.
    """

    def __init__(self, batch: DataProto):
        mask = batch.batch["response_mask"].bool()
        number: dict[object, int] = {}
        self.of_row = torch.tensor([number.setdefault(i, len(number)) for i in batch.non_tensor_batch["traj_id"].tolist()], dtype=torch.long)
        self.rows: list[list[int]] = [[] for _ in number]
        for row, k in enumerate(self.of_row.tolist()):
            self.rows[k].append(row)
        self.first = torch.tensor([rows[0] for rows in self.rows], dtype=torch.long)

        order = torch.tensor([row for rows in self.rows for row in rows], dtype=torch.long)
        # a reward keeps its place even where rejection took the token from the mask
        keep = mask | (batch.batch["token_level_scores"] != 0)
        at, self._column = keep[order].nonzero(as_tuple=True)
        self._row = order[at]
        self._trajectory = self.of_row[self._row]
        turns = batch.batch["turn_index"] if "turn_index" in batch.batch.keys() else mask.logical_not().cumsum(-1)
        turn = turns[self._row, self._column]
        same = self._trajectory[1:] == self._trajectory[:-1]
        new_turn = same & ((self._row[1:] != self._row[:-1]) | (turn[1:] != turn[:-1]))
        self._turn = self._count(new_turn.long(), same)
        self._place = self._count(1 + new_turn.long(), same)
        self.width = int(self._place.max()) + 1 if len(self._place) else 1
        self._shape = mask.shape

    def _count(self, steps: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        """``steps`` (n-1,) from each kept position to the next added up from 0 within each trajectory; ``same``: both are of one."""
        if not len(self._row):
            return self._row
        total = torch.cat([torch.zeros(1, dtype=torch.long), steps]).cumsum(0)
        begins = torch.cat([torch.ones(1, dtype=torch.bool), ~same])
        starts = torch.zeros(len(self.rows), dtype=torch.long)
        starts[self._trajectory[begins]] = total[begins]
        return total - starts[self._trajectory]

    def __len__(self) -> int:
        return len(self.rows)

    def join(self, tensor: torch.Tensor) -> torch.Tensor:
        """A per-token tensor (B, T-1) -> (N, width), 0 between turns and behind the end."""
        joined = tensor.new_zeros(len(self.rows), self.width)
        joined[self._trajectory, self._place] = tensor[self._row, self._column]
        return joined

    def turn_index(self) -> torch.Tensor:
        """(N, width) the turn that each position belongs to, counted from 0 within the trajectory; -1 elsewhere."""
        turns = torch.full((len(self.rows), self.width), -1, dtype=torch.long)
        turns[self._trajectory, self._place] = self._turn
        return turns

    def split(self, tensor: torch.Tensor) -> torch.Tensor:
        """The way back, (N, width) -> (B, T-1), 0 where no position was kept."""
        split = tensor.new_zeros(self._shape)
        split[self._row, self._column] = tensor[self._trajectory, self._place]
        return split

    def join_batch(self, batch: DataProto, names: tuple[str, ...]) -> DataProto:
        """``N`` rows with those of the per-token tensors ``names`` that ``batch`` has, ``turn_index`` counted within the
        trajectory, its (B,) tensors and columns as each trajectory's first row has them."""
        tensors = {}
        for name, tensor in batch.batch.items():
            if name == "turn_index":
                tensors[name] = self.turn_index()
            elif name in names:
                tensors[name] = self.join(tensor)
            elif tensor.dim() == 1:
                tensors[name] = tensor[self.first]
        columns = {name: values[self.first.numpy()] for name, values in batch.non_tensor_batch.items()}
        return DataProto.from_dict(tensors=tensors, non_tensors=columns, meta_info=dict(batch.meta_info))
