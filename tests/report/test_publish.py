"""What is left at the end of a run: the page, the model cards, and never a failed run."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from engine.images.decode import decode
from engine.metrics.score import Score
from engine.models import checkpoint
from engine.models.build import build_model
from engine.report import publish as publishing
from engine.report.model_card import CardFacts, is_timms, model_card
from engine.report.publish import publish
from engine.settings.model import ModelSettings
from engine.settings.run import ReportSettings
from jobs import report as job
from tests.report.page_run import PageRun, Plan, page_run

ROTATED = 6
"""EXIF's orientation of a picture that was taken with the camera on its side."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    return page_run(tmp_path_factory.mktemp("publish") / "run", Plan(("cat", "dog"), generations=1))


FACTS = CardFacts(
    run="r",
    model="generation 1",
    task="classify",
    config={"architecture": "test_resnet", "label_names": ["cat", "do\ng: [", "```\n# heading"], "engine": {}},
    scores={"test": Score("accuracy", 0.9025, 0.8695, 0.9279, 400)},
    images={"labelled": 50, "pool": 1097},
    pseudo_labels=1079,
    steps=(("teacher fit", "fit-1"),),
    is_chosen=True,
)


def front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def python_of(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


def test_the_page_and_the_cards_are_in_their_folders(run: PageRun) -> None:
    written = publish(run.run, ReportSettings())
    assert written == f"{run.run.uri}/report.html"
    assert "Use generation 1" in Path(written).read_text()
    cards = sorted(Path(run.store.root).glob("steps/fit-*/model/README.md"))
    assert len(cards) == 2
    texts = [card.read_text() for card in cards]
    assert sum("the model to use of" in text for text in texts) == 1
    chosen = next(text for text in texts if "the model to use of" in text)
    assert "generation 1 select: `select-" in chosen
    assert "- pseudo-labels that it was trained on: 6" in chosen


def test_no_page_where_none_is_wanted(run: PageRun, tmp_path: Path) -> None:
    assert publish(replace_run(run, tmp_path), ReportSettings(page=False)) is None


def replace_run(run: PageRun, folder: Path) -> Any:
    """A run whose every use would fail."""
    return type("Broken", (), {"store": run.store, "name": str(folder)})()


def test_a_page_that_cannot_be_made_is_logged_and_fails_nothing(
    run: PageRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(page: object) -> str:
        raise RecursionError(f"{type(page).__name__} is too deep")

    monkeypatch.setattr(publishing, "render_page", fail)
    monkeypatch.setattr(publishing, "write_model_cards", fail)
    assert publish(run.run, ReportSettings()) is None
    said = capsys.readouterr().out
    assert "page could not be made: RecursionError: Page is too deep. The results are stored." in said
    assert "model cards could not be made" in said
    assert f"python -m jobs.report {run.store.uri} r" in said


def test_the_front_matter_is_the_hubs() -> None:
    matter = front_matter(model_card(FACTS))
    assert matter["library_name"] == "timm"
    assert matter["pipeline_tag"] == "image-classification"
    (result,) = matter["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.9025
    assert result["metrics"][0]["type"] == "accuracy"
    assert result["dataset"]["split"] == "test"
    assert "model-index" not in front_matter(model_card(replace(FACTS, scores={})))
    assert front_matter(model_card(replace(FACTS, task="segment")))["pipeline_tag"] == "image-segmentation"


def test_names_cannot_leave_the_block_of_code_that_they_are_in() -> None:
    card = model_card(replace(FACTS, run='"; ---\n# x', model="\x1b[31m"))
    assert front_matter(card)["model-index"][0]["name"] == '"; --- # x \\x1b[31m'
    body = card.split("\n---\n", 1)[1]
    assert "\n# heading" not in body
    assert "\n# x" not in body
    assert "\x1b" not in card
    assert body.count("\n```") == 6


def test_the_commands_of_the_card_give_the_engines_answer_with_plain_timm(tmp_path: Path) -> None:
    """With an image that its EXIF turns: the line for it is what makes the two agree."""
    settings = ModelSettings(model="test_resnet", img_size=64)
    torch.manual_seed(0)
    network = build_model(settings, 3)
    with torch.no_grad():
        network.get_parameter("fc.weight").mul_(50)  # random weights see little difference between pictures
    checkpoint.save(tmp_path, network, settings, ["a", "b", "c"])
    pixels = np.zeros((96, 64, 3), np.uint8)
    pixels[20:50] = 255, 128, 0
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    lines = (
        python_of(model_card(FACTS)).replace("FOLDER", str(tmp_path)).replace("image.jpg", str(tmp_path / "image.png"))
    )
    assert "engine" not in lines
    found: dict[str, Any] = {}
    exec(lines, found)
    loaded = checkpoint.load(tmp_path)
    seen = decode((tmp_path / "image.png").read_bytes(), loaded.frame).float() / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (loaded.mean, loaded.std))
    with torch.no_grad():
        expected = loaded.model(((seen - mean) / std)[None]).softmax(1)[0]
    torch.testing.assert_close(found["probabilities"], expected, atol=0.02, rtol=0)
    unturned = lines.replace("ImageOps.exif_transpose(", "(")
    exec(unturned, found)
    assert not torch.allclose(found["probabilities"], expected, atol=0.05)


def test_networks_of_the_engine_are_registered_by_the_card() -> None:
    assert is_timms("resnet18")
    assert not is_timms("resnet8_cifar")
    own = model_card(replace(FACTS, config={**FACTS.config, "architecture": "resnet8_cifar"}))
    assert "import engine.models.build" in python_of(own)
    masks = {**FACTS.config, "engine": {"model_settings": {"decoder": "unet"}}}
    assert "engine.models.checkpoint" in python_of(model_card(replace(FACTS, config=masks, task="segment")))
    assert timm.is_model("resnet8_cifar")


def test_a_run_is_followed_until_it_has_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = page_run(tmp_path / "run", Plan(("cat", "dog"), generations=1))
    metrics, out = Path(made.run.folder) / "metrics.json", tmp_path / "page.html"
    text = metrics.read_text()
    metrics.unlink()
    seen = []

    def work(seconds: float) -> None:
        """What happens between two pages: the run comes to its end."""
        seen.append((seconds, out.read_text()))
        metrics.write_text(text)

    monkeypatch.setattr(job.time, "sleep", work)
    arguments = ["--out", str(out), "--picture-seconds", "0", "--follow", "7"]
    monkeypatch.setattr(sys, "argv", ["report", made.store.uri, "r", *arguments])
    job.main()
    ((seconds, first),) = seen
    assert seconds == 7
    assert "not finished" in first
    assert '<meta http-equiv="refresh" content="7">' in first
    assert "Use generation 1" in out.read_text()
    assert "refresh" not in out.read_text()
    assert capsys.readouterr().out.count("page.html") == 2


def test_the_job_writes_the_page_where_it_is_told(
    run: PageRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", run.store.uri, "r", "--out", str(out), "--picture-seconds", "0"])
    job.main()
    assert out.read_text().startswith("<!doctype html>")
    assert str(out) in capsys.readouterr().out
    for arguments, message in (
        (["r", "--out", str(tmp_path / "no" / "page.html")], "does not exist"),
        (["nothing"], "no run named 'nothing'"),
        (["r", "--picture-seconds", "-1"], "a time is 0 or more"),
        (["r", "--follow", "0"], "at least 1 second"),
    ):
        monkeypatch.setattr(sys, "argv", ["report", run.store.uri, *arguments])
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            job.main()
