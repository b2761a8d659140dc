"""The single jobs: predict, select, fit and evaluate, each from its config and a few overrides."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ground.run import pointers
from engine.ground.steps import Store, read_output, read_tables
from jobs import cli

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


class Start:
    """Starts a job in this process and gives back what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, job: str, *arguments: str) -> str:
        config = CONFIGS / f"{job}.yaml"
        given = [str(config), *arguments] if config.exists() else list(arguments)
        self.monkeypatch.setattr(sys, "argv", [job, *given])
        self.capfd.readouterr()
        importlib.import_module(f"jobs.{job}").main()
        return self.capfd.readouterr().out


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Start:
    return Start(monkeypatch, capfd)


def step_in(text: str, verb: str) -> str:
    found = re.findall(rf"{verb}-[0-9a-f]{{16}}", text)
    assert found, f"no {verb} step in:\n{text}"
    return found[-1]


def test_predict_select_fit_and_evaluate_one_by_one(start: Start, finished: str, digits: Path) -> None:
    store = f"store={finished}"
    teacher = next(pointer.step for pointer in pointers(Store(finished), "run") if pointer.title == "teacher fit")
    test = str(digits / "test")

    output = start(
        "predict", store, f"model={teacher}", f"images.uri={digits / 'pool.parquet'}", f"images.exclude=[{test}]"
    )
    assert "1097 images predicted" in output
    predictions = step_in(output, "predict")

    output = start("select", store, f"predictions={predictions}", "select.threshold=0.5")
    chosen = step_in(output, "select")
    assert re.search(r"\d+ pseudo-labels in", output)

    output = start(
        "fit",
        store,
        f"data.labelled={digits / 'labelled'}",
        f"data.pool={digits / 'pool.parquet'}",
        f"pseudo={chosen}",
        f"init={teacher}",
        "model={model: resnet8_cifar, img_size: 16, model_args: {width: 8}}",
        "fit={steps: 10, batch: {labelled: 8, pseudo: 16}, lr: 0.01, checkpoint_every: 10, log_every: 5}",
    )
    model = re.findall(r"timm hub folder at (\S+)", output)[-1]
    assert (Path(model) / "model.safetensors").exists()

    output = start("evaluate", store, f"model={model}", f"images.uri={test}")
    assert re.search(r"accuracy \d+\.\d % \(95 % CI [\d.]+-[\d.]+, 400 images\), calibration error", output)

    output = start("status", finished, "fit")
    assert "done" in output


def test_a_student_learns_from_soft_labels_of_another_tool(
    start: Start, finished: str, digits: Path, tmp_path: Path
) -> None:
    """Twenty pool images have a distribution; gather copies these, with their targets, and fit draws from them. One is a test image: not learned."""
    store = Store(finished)
    pool = pq.read_table(digits / "pool.parquet", columns=["key", "image"]).slice(0, 100).to_pylist()[::5]
    keys = [row["key"] for row in pool]
    (tmp_path / "test" / "0").mkdir(parents=True)
    (tmp_path / "test" / "0" / "known.png").write_bytes(pool[3]["image"])
    rows = np.full((len(keys), 10), 0.1 / 9)
    rows[np.arange(len(keys)), np.arange(len(keys)) % 10] = 0.9
    lines = [f"{key},{','.join(map(str, row))}" for key, row in zip(keys, rows, strict=True)]
    table = tmp_path / "soft.csv"
    table.write_text(
        "\n".join([",".join(["key", *sorted(one.name for one in (digits / "labelled").iterdir())]), *lines])
    )
    output = start(
        "fit",
        f"store={finished}",
        f"data.labelled={digits / 'labelled'}",
        f"data.pool={digits / 'pool.parquet'}",
        f"data.test={tmp_path / 'test'}",
        f"soft.table={table}",
        "model={model: resnet8_cifar, img_size: 16, model_args: {width: 8}}",
        "fit={steps: 4, batch: {labelled: 8, soft: 8}, lr: 0.01, checkpoint_every: 10, log_every: 5}",
    )
    assert f"{len(keys)} of 1097 images have soft labels" in output
    gathered = next(one for one in pointers(store, "fit") if one.title == "gather soft")
    gather_output = read_output(store, gathered.step)
    assert gather_output is not None
    images = pa.concat_tables(table for _, table in read_tables(gather_output, store.fs))
    assert sorted(images["key"].to_pylist()) == sorted(key for key in keys if key != pool[3]["key"])
    for row in images.select(["key", "classes", "weights"]).to_pylist():
        weight, index = max(zip(row["weights"], row["classes"], strict=True))
        assert (index, weight) == (keys.index(row["key"]) % 10, pytest.approx(0.9))


def test_an_unreadable_checkpoint_is_reported_in_one_paragraph(
    start: Start, finished: str, digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher = next(pointer.step for pointer in pointers(Store(finished), "run") if pointer.title == "teacher fit")
    good = next((Path(finished) / "steps" / teacher).glob("model-*"))
    bad = tmp_path / "model"
    bad.mkdir()
    (bad / "config.json").write_bytes((good / "config.json").read_bytes())
    (bad / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:1000])
    arguments = (f"store={finished}", f"model={bad}", f"images.uri={digits / 'test'}")
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: print(start("evaluate", *arguments)))
    assert ended.value.code == 2
    output = capfd.readouterr().err
    assert "model.safetensors" in output
    assert "Traceback" not in output


def test_selecting_from_a_step_that_is_not_there_names_the_store(start: Start, finished: str) -> None:
    with pytest.raises(ValueError, match="not a finished step"):
        start("select", f"store={finished}", "predictions=predict-0123456789abcdef")
