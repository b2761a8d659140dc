"""Every file of cluster/ is parsed and checked: `ray up` files against Ray's own schema, KubeRay's against the fields of its CRD that they use."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import engine
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import has_key, load
from engine.settings.jobs import PredictJobSettings

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"

STRING, BOOL, WHOLE, TEXTS = str, bool, int, "mapping of strings"
POD = {
    "metadata": {"labels": TEXTS, "annotations": TEXTS},
    "spec": {
        "terminationGracePeriodSeconds": WHOLE,
        "tolerations": [{"key": STRING, "operator": STRING, "effect": STRING, "value": STRING}],
        "nodeSelector": TEXTS,
        "containers": [
            {
                "name": STRING,
                "image": STRING,
                "ports": [{"containerPort": WHOLE, "name": STRING}],
                "env": [{"name": STRING, "value": STRING}],
                "resources": {"requests": TEXTS, "limits": TEXTS},
                "volumeMounts": [{"mountPath": STRING, "name": STRING, "readOnly": BOOL}],
            }
        ],
        "volumes": [
            {"name": STRING, "emptyDir": {"medium": STRING, "sizeLimit": STRING}, "configMap": {"name": STRING}}
        ],
    },
}
RAY_CLUSTER = {
    "rayVersion": STRING,
    "authOptions": {"mode": STRING},
    "enableInTreeAutoscaling": BOOL,
    "suspend": BOOL,
    "autoscalerOptions": {
        "upscalingMode": STRING,
        "idleTimeoutSeconds": WHOLE,
        "resources": {"requests": TEXTS, "limits": TEXTS},
    },
    "headGroupSpec": {"serviceType": STRING, "rayStartParams": TEXTS, "template": POD},
    "workerGroupSpecs": [
        {
            "groupName": STRING,
            "replicas": WHOLE,
            "minReplicas": WHOLE,
            "maxReplicas": WHOLE,
            "rayStartParams": TEXTS,
            "template": POD,
        }
    ],
}
RAY_JOB = {
    "entrypoint": STRING,
    "runtimeEnvYAML": STRING,
    "suspend": BOOL,
    "submissionMode": STRING,
    "shutdownAfterJobFinishes": BOOL,
    "ttlSecondsAfterFinished": WHOLE,
    "activeDeadlineSeconds": WHOLE,
    "backoffLimit": WHOLE,
    "submitterConfig": {"backoffLimit": WHOLE},
    "rayClusterSpec": RAY_CLUSTER,
}
"""Fields of the CRDs ray.io/v1 (KubeRay 1.5) and of core/v1 pods that our manifests use, with their types."""


def problems(value: Any, schema: Any, path: str = "spec") -> Iterator[str]:
    """Where `value` does not fit the schema: unknown fields and wrong types."""
    if schema is TEXTS:
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            yield f"{path}: not a mapping of strings: {value}"
    elif isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{path}: not an object"
            return
        for key, inner in value.items():
            if key not in schema:
                yield f"{path}.{key}: unknown field"
            else:
                yield from problems(inner, schema[key], f"{path}.{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(value):
            yield from problems(inner, schema[0], f"{path}[{index}]")
    elif type(value) is not schema:
        yield f"{path}: {value!r} is not of type {schema.__name__}"


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def ray_cluster(name: str) -> dict[str, Any]:
    manifest = read(name)
    return manifest["spec"]["rayClusterSpec"] if manifest["kind"] == "RayJob" else manifest["spec"]


MANIFESTS = ["kuberay/raycluster.yaml", "kuberay/rayjob.yaml"]


@pytest.mark.parametrize(
    ("name", "kind", "schema"), zip(MANIFESTS, ["RayCluster", "RayJob"], [RAY_CLUSTER, RAY_JOB], strict=True)
)
def test_kuberay_manifests_use_fields_of_the_crd(name: str, kind: str, schema: dict[str, Any]) -> None:
    manifest = read(name)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", kind)
    assert set(manifest["metadata"]) <= {"name", "generateName", "labels"}
    assert list(problems(manifest["spec"], schema)) == []


def test_the_check_finds_what_is_wrong() -> None:
    wrong = {
        "rayVersion": 2.6,
        "headGroupSpecs": {},
        "workerGroupSpecs": [{"replicas": "1"}],
        "enableInTreeAutoscaling": 1,
    }
    assert len(list(problems(wrong, RAY_CLUSTER))) == 4


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_clusters_have_an_idle_head_and_groups_that_fit(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP", "nothing listens outside the cluster"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"gpu", "cpu"}
    for group in groups.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    gpu = groups["gpu"]["template"]["spec"]["containers"][0]["resources"]
    assert gpu["requests"]["nvidia.com/gpu"] == gpu["limits"]["nvidia.com/gpu"] == "1"


def test_the_ray_job_waits_for_kueue_and_retries() -> None:
    manifest = read("kuberay/rayjob.yaml")
    assert "kueue.x-k8s.io/queue-name" in manifest["metadata"]["labels"]
    spec = manifest["spec"]
    assert spec["suspend"], "Kueue admits a suspended job"
    assert not spec["rayClusterSpec"]["enableInTreeAutoscaling"], "Kueue counts what the manifest asks for"
    assert len(manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) < 64
    assert spec["backoffLimit"] > 0
    yaml.safe_load(spec["runtimeEnvYAML"])


@pytest.mark.parametrize("name", ["aws.yaml", "on-premise.yaml"])
def test_ray_up_files_pass_rays_own_check(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(name)))
    started = [*read(name)["head_start_ray_commands"], *read(name)["worker_start_ray_commands"]]
    starts = [command for command in started if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--num-cpus=0" in starts[0]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0], "without it no worker is started"


def test_the_aws_cluster_has_an_idle_head_spot_gpus_and_a_cpu_pool() -> None:
    types = read("aws.yaml")["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in types["head"]["node_config"], "the head is no spot machine"
    for name in ("gpu_spot", "cpu_decode"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert sum(t.get("max_workers", 0) for t in types.values()) <= read("aws.yaml")["max_workers"]


def test_where_machines_come_and_go_a_gpu_is_alive_from_the_start() -> None:
    """The engine plans a step for GPUs or for CPUs by what is alive."""
    types = read("aws.yaml")["available_node_types"]
    assert (types["gpu_spot"]["min_workers"], types["cpu_decode"]["min_workers"]) == (1, 0)
    groups = read("kuberay/raycluster.yaml")["spec"]["workerGroupSpecs"]
    assert {group["groupName"]: group["minReplicas"] for group in groups} == {"gpu": 1, "cpu": 0}
    nodes = read("anyscale.yaml")["compute_config"]["worker_nodes"]
    assert {node["name"]: node["min_nodes"] for node in nodes} == {"gpu-spot": 1, "cpu-decode": 0}


def test_the_anyscale_job_has_known_fields() -> None:
    job = read("anyscale.yaml")
    known = {"name", "image_uri", "working_dir", "excludes", "entrypoint", "env_vars", "compute_config", "max_retries"}
    assert set(job) == known
    assert {node["market_type"] for node in job["compute_config"]["worker_nodes"]} <= {
        "PREFER_SPOT",
        "SPOT",
        "ON_DEMAND",
    }
    assert {".git", ".venv", "store"} <= set(job["excludes"])


def entrypoints() -> list[tuple[str, str]]:
    return [(name, command) for name, command in (
        ("kuberay/rayjob.yaml", read("kuberay/rayjob.yaml")["spec"]["entrypoint"]),
        ("anyscale.yaml", read("anyscale.yaml")["entrypoint"]),
    )]  # fmt: skip


@pytest.mark.parametrize(("name", "command"), entrypoints())
def test_entrypoints_start_a_job_with_settings_that_exist(name: str, command: str) -> None:  # noqa: ARG001
    python, m, job, config, *overrides = command.split()
    assert (python, m) == ("python", "-m")
    assert (ROOT / f"{job.replace('.', '/')}.py").is_file()
    config = config if (ROOT / config).is_file() else "jobs/configs/folders.yaml"
    load(SelfTrainSettings, ROOT / config, overrides)


def test_one_image_and_the_tested_version_of_ray_everywhere() -> None:
    texts = {path: path.read_text() for path in CLUSTER.rglob("*") if path.is_file()}
    images = {image for text in texts.values() for image in re.findall(r"REGISTRY/\S+?:[\w.]+", text)}
    assert images == {f"REGISTRY/self-training:{engine.__version__}"}
    [version] = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    for name in MANIFESTS:
        assert ray_cluster(name)["rayVersion"] == version


def test_the_dockerfile_copies_what_exists() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.M):
        assert all((ROOT / source).exists() for source in line.split()), line
    assert re.search(r"^USER ray$", text, re.M), "the job is not root"
    assert re.search(r"^RUN pip install .*--constraint constraints\.txt .* boto3$", text, re.M), (
        "Ray's AWS autoscaler imports it"
    )
    assert re.search(r"^boto3==", (ROOT / "constraints.txt").read_text(), re.M)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_slurm_script_is_valid_bash_and_keeps_its_token_to_itself() -> None:
    script = CLUSTER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "#SBATCH --requeue" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "RAY_AUTH_TOKEN=" not in text


def test_the_guide_names_only_what_exists() -> None:
    text = (CLUSTER / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (CLUSTER / target).exists(), target
    for job in set(re.findall(r"jobs[.](\w+)", text)):
        assert (ROOT / "jobs" / f"{job}.py").exists(), job
    for path in re.findall(r"`((?:cluster|predict|data|fits)\.[a-z_.]+)`", text):
        assert has_key(SelfTrainSettings, path) or has_key(PredictJobSettings, path), path
