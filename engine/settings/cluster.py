"""Settings of what a run may take of a cluster."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block


class ClusterSettings(Block):
    """What a step may take. Nothing here changes a result, so nothing here is part of a fingerprint."""

    address: str | None = Field(None, description="a Ray cluster; an embedded local one when not given")
    num_cpus: int | None = Field(
        None, ge=1, description="CPUs of an embedded local Ray; all of the machine when not given"
    )
    num_workers: int | None = Field(
        None, ge=1, description="labelling actors; one a GPU, else one a CPU, when not given"
    )
    max_workers: int | None = Field(
        None,
        ge=1,
        description="labelling actors may become so many while a step runs, as machines join; fixed when not given",
    )
    train_workers: int = Field(1, ge=1, description="workers of a fit, a GPU each where there are GPUs")
    min_train_workers: int | None = Field(
        None,
        ge=1,
        description="a fit begins and goes on with so few while machines are missing, and grows as they come; fixed when not given",
    )
    train_cpus: int | None = Field(
        None,
        ge=1,
        description="CPUs and threads of a training worker; as many as each can have on one machine when not given",
    )
    train_in_driver: bool = Field(
        True,
        description="a fit of one worker on the CPUs of an embedded local Ray runs in the driver process, without the half minute that Ray Train's"
        " own processes take to start",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="GPUs of a labelling actor; one where there are any when not given. Set it where machines with GPUs are still to come:"
        " fits then wait for them, too",
    )
    wave_shards: int = Field(4096, ge=1, description="shards handed to Ray Data at once")
    max_failures: int = Field(3, ge=0, description="worker crashes that a step survives")
    max_preemptions: int = Field(
        100, ge=0, description="losses of whole machines that a step survives; they are no fault of the work"
    )
    stall_minutes: float = Field(
        30.0, gt=0, description="a labelling step in which no shard is finished for so long fails instead of hanging"
    )
    decode_threads: int | None = Field(
        None,
        ge=0,
        description="threads that decode ahead of a labelling worker; when not given its share of CPUs on a GPU, none on a CPU",
    )
    trackers: list[Literal["tensorboard", "jsonl", "mlflow", "wandb"]] = Field(
        ["tensorboard", "jsonl"], description="where the curves of a fit go; mlflow and wandb are extras"
    )
    select_state_bytes: int = Field(
        256 * 2**20,
        ge=0,
        description="selections whose running state would be larger go over the disk: two passes, the same result",
    )
    worker_logs: bool = Field(False, description="print what the workers print; it is in Ray's logs all the same")

    def refuse_uneven(self, where: str, batch: Mapping[str, int]) -> None:
        """Raise ValueError unless every number of training workers that may come can share each stream's images a step evenly."""
        for workers in range(self.min_train_workers or self.train_workers, self.train_workers + 1):
            for name, images in batch.items():
                if images % workers:
                    raise ValueError(
                        f"{where}: {workers} workers cannot share batch.{name}={images} images a step evenly: set it to a multiple of {workers}, "
                        "or change cluster.train_workers (and min_train_workers: every number between the two may come)"
                    )

    @model_validator(mode="after")
    def _elastic_between(self) -> Self:
        if self.min_train_workers is not None and self.min_train_workers > self.train_workers:
            raise ValueError(
                f"min_train_workers is {self.min_train_workers}, more than train_workers, {self.train_workers}: a fit goes from the one to the other"
            )
        return self
