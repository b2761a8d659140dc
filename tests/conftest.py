"""Fixtures that several rooms share: real images, a local Ray, an S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from jobs.demo import make_digits

CIFAR10 = Path(os.environ.get("CIFAR10", Path(__file__).parents[2] / "shared" / "data" / "cifar10"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as the demo writes them: labelled/, validation/, test/ and pool.parquet."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder)
    return folder


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """CIFAR-10 as Parquet of JPEGs; set CIFAR10 to its folder."""
    if not CIFAR10.is_dir():
        pytest.skip(f"no CIFAR-10 at {CIFAR10}; set CIFAR10 to the folder of its Parquet files")
    return CIFAR10


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One embedded Ray for all tests that need one."""
    from engine.ground.session import connect
    from engine.settings.cluster import ClusterSettings

    with connect(ClusterSettings()):
        yield


@pytest.fixture(scope="session")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> str:  # noqa: ARG001
    """The store of a finished small run called `run`. Tests may add runs to it; its steps are then found instead of made."""
    from jobs.self_train import self_train
    from tests.small_run import small_settings

    store = str(tmp_path_factory.mktemp("main") / "store")
    self_train(small_settings(digits, store))
    return store


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URI pattern of a bucket on an S3 server of this process: fill in the path, e.g. s3.format("store")."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    ).create_bucket(Bucket="bucket")
    yield f"s3://key:secret@bucket/{{}}?region=us-east-1&scheme=http&endpoint_override={host}%3A{port}"
    server.stop()
