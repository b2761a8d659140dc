"""Settings of what a run may take of a cluster."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block


class LabelClusterSettings(Block):
    """Workers that predict."""

    workers: int | None = Field(
        None, ge=1, le=100_000, description="number of prediction actors (default: one per GPU, else per CPU)"
    )
    max_workers: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="largest number of prediction actors as nodes join during a step (default: workers)",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of a prediction actor; set it where nodes with GPUs are still to come: fits then wait for them, too"
        " (default: 1 where there are GPUs)",
    )
    wave_shards: int = Field(4096, ge=1, le=1_000_000, description="number of shards handed to Ray Data at once")
    stall_minutes: float = Field(
        30.0,
        gt=0,
        le=525_600,
        description="longest time in minutes without a finished shard; then the step fails instead of hanging",
    )
    decode_threads: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="threads that decode ahead of a prediction worker (default: its share of CPUs on a GPU, none on a CPU)",
    )


class TrainClusterSettings(Block):
    """Workers that train."""

    workers: int = Field(1, ge=1, le=100_000, description="workers of a fit, one GPU each where there are GPUs")
    min_workers: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="fewest workers with which a fit begins and goes on while nodes are missing; it grows as they come (default: workers)",
    )
    cpus: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="CPUs and threads of a training worker (default: as many as each can have on one node)",
    )
    in_driver: bool = Field(
        True,
        description="a fit of one worker on the CPUs of an embedded local Ray runs in the driver process, without the half minute that Ray Train's"
        " own processes take to start",
    )
    trackers: list[Literal["tensorboard", "jsonl", "mlflow", "wandb"]] = Field(
        ["tensorboard", "jsonl"], description="where the curves of a fit go; mlflow and wandb are extras"
    )

    @model_validator(mode="after")
    def _elastic_between(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers is {self.min_workers}, more than workers, {self.workers}: a fit goes from the one to the other"
            )
        return self


class RetrySettings(Block):
    """How much a step survives."""

    max_failures: int = Field(3, ge=0, le=1_000_000, description="worker crashes that a step survives")
    max_preemptions: int = Field(
        100, ge=0, le=1_000_000, description="losses of whole nodes that a step survives; they are no fault of the work"
    )


class ClusterSettings(Block):
    """What a step may take. Nothing here changes a result, so nothing here identifies a step."""

    address: str | None = Field(
        None, description="address of a Ray cluster (default: RAY_ADDRESS, else an embedded local one)"
    )
    num_cpus: int | None = Field(
        None, ge=1, le=4096, description="CPUs of an embedded local Ray (default: all of the machine)"
    )
    label: LabelClusterSettings = Field(LabelClusterSettings(), description="workers that predict")
    train: TrainClusterSettings = Field(TrainClusterSettings(), description="workers that train")
    retries: RetrySettings = Field(RetrySettings(), description="how much a step survives")
    select_state_bytes: int = Field(
        256 * 2**20,
        ge=0,
        le=2**50,
        description="largest running state of a selection in bytes; larger ones go over the disk in two passes, with the same result",
    )
    worker_logs: bool = Field(False, description="print what the workers print; it is in Ray's logs all the same")

    def refuse_uneven(self, where: str, batch: Mapping[str, int]) -> None:
        """Raise ValueError unless every number of training workers that may come can share each stream's images per step evenly."""
        for workers in range(self.train.min_workers or self.train.workers, self.train.workers + 1):
            for name, images in batch.items():
                if images % workers:
                    raise ValueError(
                        f"{where}: {workers} workers cannot share batch.{name}={images} images a step evenly: set it to a multiple of {workers}, "
                        "or change cluster.train.workers (and min_workers: every number between the two may come)"
                    )
