"""The checks of the doctor on synthetic clusters: a healthy one, and each fault by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.cluster.checks import GIB, NodeFacts, check_cluster, clock_ahead
from engine.cluster.probe import decode_rate, versions, write_and_read
from engine.ground.steps import Store

WELL = NodeFacts(
    node="a",
    versions={"python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0"},
    cpus=16.0,
    gpus_declared=1,
    gpus_seen=1,
    store_error="",
    store_seconds=0.05,
    disk_free=100 * GIB,
    disk_at="/tmp/ray",
    object_store=16 * GIB,
    memory=64 * GIB,
    ahead=0.0,
    decode_rate=500.0,
    token=True,
)
HEAD = replace(WELL, node="head", cpus=0.0, gpus_declared=0, gpus_seen=0, decode_rate=10.0)


def test_a_healthy_cluster_with_an_idle_head_has_no_findings() -> None:
    findings = check_cluster(HEAD, [HEAD, WELL, replace(WELL, node="b")])
    assert {finding.level for finding in findings} == {"ok"}
    assert any("3 nodes, 32 CPUs, 2 GPUs" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("changed", "level", "what", "message", "remedy"),
    [
        ({"versions": {**WELL.versions, "ray": "2.59.0"}}, "error", "version of ray", "2.59.0 on sick", "one image"),
        (
            {"versions": {"python": "3.11.7", "ray": "2.60.0"}},
            "warning",
            "version of torch",
            "missing on sick",
            "one image",
        ),
        ({"gpus_seen": 0}, "error", "GPUs", "schedules 1 GPUs, torch sees 0", "nvidia-smi"),
        ({"gpus_seen": 4}, "warning", "GPUs", "sees 4", "--num-gpus"),
        ({"store_error": "s3://b: access denied"}, "error", "store", "access denied", "credentials"),
        ({"store_seconds": 9.0}, "warning", "store", "9.0 s", "same region"),
        ({"disk_free": GIB}, "warning", "disk", "1 GiB free at /tmp/ray", "larger volume"),
        ({"object_store": GIB // 4}, "warning", "object store", "0.2 GiB of 64 GiB", "/dev/shm"),
        ({"ahead": -7.0}, "warning", "clock", "7.0 s behind", "NTP"),
        ({"ahead": 7.0}, "warning", "clock", "7.0 s ahead of", "NTP"),
        ({"decode_rate": 40.0}, "warning", "decoding", "40 JPEGs/s", "simplejpeg"),
        ({"token": False}, "error", "authentication", "off on sick", "RAY_AUTH_MODE=token"),
    ],
)
def test_each_fault_is_found_on_its_node_with_a_remedy(
    changed: dict[str, Any], level: str, what: str, message: str, remedy: str
) -> None:
    findings = check_cluster(HEAD, [HEAD, WELL, replace(WELL, node="sick", **changed)])
    [found] = [finding for finding in findings if finding.level != "ok"]
    assert (found.level, found.what) == (level, what)
    assert message in found.message
    assert remedy in found.remedy
    assert found.node in ("", "sick")
    assert findings[0] == found, "the gravest comes first"


def test_a_cluster_without_workers_is_an_error() -> None:
    found = check_cluster(HEAD, [HEAD])[0]
    assert (found.level, found.what) == ("error", "work")


def test_the_lead_of_a_clock_excludes_the_time_of_the_call() -> None:
    assert clock_ahead(100, 103, 110) == 0
    assert clock_ahead(100, 112, 110) == 2
    assert clock_ahead(100, 95, 110) == -5


def test_the_store_is_probed_and_its_error_reported(tmp_path: Path) -> None:
    assert write_and_read(Store(str(tmp_path / "store")))[0] == ""
    assert list((tmp_path / "store" / "doctor").iterdir()) == [], "the probe file is deleted"
    (tmp_path / "file").write_text("")
    assert "file" in write_and_read(Store(str(tmp_path / "file")))[0]
    assert "nowhere" in write_and_read(Store("nowhere://x"))[0]


def test_versions_and_decoding_are_measured_here() -> None:
    assert versions()["ray"] == __import__("ray").__version__
    assert decode_rate() > 1
