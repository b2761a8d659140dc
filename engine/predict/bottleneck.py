"""Where a labelling step's time goes, and which stage bounds it: from the seconds that stand in the names of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass

STAGES = ("read", "decode", "infer", "write")
REMEDIES = {
    "read": "store the images nearer or in larger files",
    "decode": "more CPUs a worker, or predict.decode=scaled, or =nvjpeg on a GPU",
    "infer": "more or faster devices, or a faster predict.backend",
    "write": "a faster store, or larger shards (rows_per_shard)",
}


@dataclass(frozen=True)
class Bottleneck:
    """Shares of the stages (they sum to 1), the one that bounds the step, and for look-ahead the share of time for which the device was busy."""

    stage: str
    shares: dict[str, float]
    busy: float | None

    def line(self) -> str:
        """For the log and `status`."""
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.shares.items())
        busy = f"; device busy {self.busy:.0%}" if self.busy is not None else ""
        return f"bound by {self.stage} ({shares}){busy}; faster with {REMEDIES[self.stage]}"

    def short(self) -> str:
        """For a table."""
        return f"bound by {self.stage} {self.shares[self.stage]:.0%}"


def bottleneck(seconds: Mapping[str, float]) -> Bottleneck | None:
    """From the summed seconds of each stage over all parts; None when nothing was measured.

    Without look-ahead the stages follow one another and the shares are shares of the time. With it they overlap and the largest bounds the rest:
    the device was busy for infer of the infer + wait seconds.
    """
    spent = {stage: seconds.get(stage, 0.0) for stage in STAGES}
    total = sum(spent.values())
    if total <= 0:
        return None
    shares = {stage: value / total for stage, value in spent.items()}
    waited = seconds.get("wait", 0.0)
    busy = spent["infer"] / max(1e-9, spent["infer"] + waited + spent["write"]) if waited else None
    return Bottleneck(max(shares, key=lambda stage: shares[stage]), shares, busy)
