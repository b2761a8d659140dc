"""The commands: what they print, and one paragraph for what is wrong."""

import sys
from pathlib import Path

import pytest
from shapely.geometry import LineString

from jobs import cli, map, rasterise, tiles  # noqa: A004 - the job's name
from tests.geo.making import at, ground, write_scene, write_vectors

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *overrides: str) -> None:
    jobs = {"rasterise": rasterise.main, "tiles": tiles.main, "map": map.main}
    monkeypatch.setattr(sys, "argv", [f"jobs.{name}", str(CONFIGS / f"{name}.yaml"), *overrides])
    cli.run(jobs[name])


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *command)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_rasterise_says_what_it_drew_and_how_to_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(256, 512))
    write_vectors(tmp_path / "roads.gpkg", [LineString(at((0, y), (300, y))) for y in (50, 100)])
    where = [f"scenes={tmp_path}/scenes", f"vectors.uri={tmp_path}/roads.gpkg", f"out={tmp_path}/weak"]
    run(monkeypatch, "rasterise", *where, "split=null")
    said = capsys.readouterr().out
    assert "2 features on 1 scenes; pixels: ground 9" in said
    assert f"2 in {tmp_path}/weak/labelled.parquet" in said
    assert "data.classes=[ground,road]" in said
    run(monkeypatch, "tiles", f"scenes={tmp_path}/scenes", f"masks={tmp_path}/weak/masks", f"out={tmp_path}/true")
    assert f"2 in {tmp_path}/true/labelled.parquet" in capsys.readouterr().out


def test_user_errors_are_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(64, 64))
    scenes = f"scenes={tmp_path}/scenes"
    said = refused(monkeypatch, capsys, "map", scenes, f"model={tmp_path}/none", f"out={tmp_path}/maps")
    assert "config.json: no such file. A model folder holds config.json and model.safetensors" in said
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for name in ("rasterise", "tiles", "map"):
        said = refused(monkeypatch, capsys, name, scenes, f"out={tmp_path}/new")
        assert "rasterio cannot be imported" in said
        assert "pip install '.[geo]'" in said
        assert "Traceback" not in said
