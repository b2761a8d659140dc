"""Credentials in URIs reach nothing that is printed or stored."""

from pathlib import Path

import pytest

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.settings.block import load, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.credentials import hide_credentials
from engine.settings.jobs import PredictJobSettings
from jobs import cli

URI = "s3://AKIA:s%2Fecret@bucket/pool?region=eu&sas_token=s%2Fecret"
HIDDEN = "s3://bucket/pool?region=eu"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (URI, HIDDEN),
        (f"a '{URI}' b", f"a '{HIDDEN}' b"),
        ("https://h/x?X-Amz-Signature=abc&X-Amz-Date=1", "https://h/x"),
        ("https://h/x?sig=abc&v=2", "https://h/x?v=2"),
        ("http://token@h:80/x", "http://h:80/x"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("s3://bucket/x?endpoint_override=h:9000&scheme=http", "s3://bucket/x?endpoint_override=h:9000&scheme=http"),
        ("really? a & b", "really? a & b"),
        ("key: a?sign=1", "key: a?sign=1"),
    ],
)
def test_only_credentials_are_hidden(text: str, hidden: str) -> None:
    assert hide_credentials(text) == hidden


def test_nothing_prints_or_stores_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"model": "fit-1", "run": "r", "images": {"uri": URI}, "store": str(tmp_path)}
    settings = parse(PredictJobSettings, tree, "config")
    Run(Store(str(tmp_path)), "r", ClusterSettings()).save_settings(settings)
    stored = tmp_path / "runs/r/settings.yaml"
    assert load(PredictJobSettings, stored).images.uri == HIDDEN
    log_event("pool", f"reading {URI}")

    def fail() -> None:
        raise ValueError(f"{URI}: cannot be read")

    with pytest.raises(SystemExit):
        cli.run(fail)
    shown = capsys.readouterr()
    assert HIDDEN in shown.out
    assert HIDDEN in shown.err
    assert "ecret" not in shown.out + shown.err + stored.read_text()
