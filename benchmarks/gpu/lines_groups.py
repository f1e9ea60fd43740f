"""Process groups: NCCL of one rank, of several on one card, and the forms in which the project builds them."""

from __future__ import annotations

from benchmarks.gpu.lines import line, row


def _rows(world: int, device: str, expected: tuple[str, ...], limit_s: float) -> list[dict]:
    from benchmarks.gpu.ranks import run_ranks

    found, ended = run_ranks(world, device, limit_s)
    rows = []
    for scenario in expected:
        answers = found.get(scenario, [])
        wrong = sorted({f"{what} ({value})" if value is not False else what for answer in answers for what, value in answer.items() if value is not True})
        note = "; ".join(wrong) if len(answers) == world else f"{len(answers)} of {world} ranks answered; {ended}"
        rows.append(row(f"{scenario}, ranks: {world}", len(answers) == world and not wrong, note=note))
    return [*rows, row(f"all came to an end, ranks: {world}", not ended, note=ended)]


@line("nccl", "the project's process group of one rank: collectives, groups after device_id, both constructors", 20, 100)
def nccl(setting) -> list[dict]:
    return _rows(1, setting.device, ("collectives", "groups", "constructors"), 80)


@line("nccl-ranks", "three ranks (sharing the card where there is one): collectives, groups that are no partition, weight sync", 40, 130)
def nccl_ranks(setting) -> list[dict]:
    return _rows(3, setting.device, ("collectives", "groups", "weight sync"), 110)
