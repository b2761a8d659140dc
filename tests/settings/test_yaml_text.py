"""What is written in a config or an override is what is meant, or it is refused with what to write instead."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.settings import yaml_text
from engine.settings.block import SettingsError, dump, load
from engine.settings.jobs import PredictJobSettings

CONFIG = "model: fit-1\nrun: r\nimages: {uri: u}\n"


def settings(tmp_path: Path, text: str = CONFIG, *overrides: str) -> PredictJobSettings:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load(PredictJobSettings, path, list(overrides))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-11-27", "2026-11-27"),
        ("2026-11-27 10:00:00", "2026-11-27 10:00:00"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e3", -2500.0),
        ("5", 5),
        ("1_000", 1000),
        ("0", 0),
        ("0x10", 16),
        ("true", True),
        ("null", None),
        ("", None),
        ("a#b", "a#b"),
        ("'a # b'", "a # b"),
        ("[a, 'b # c']", ["a", "b # c"]),
        ("s3://bucket/a=b", "s3://bucket/a=b"),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    found = yaml_text.read_value(text)
    assert found == value
    assert type(found) is type(value)
    assert yaml_text.read(yaml_text.write({"x": found})) == {"x": found}


@pytest.mark.parametrize("text", ["1e-3", "2026-11-27", "1:30", "010", "no", "null", "5", "a # b", "", "<<", ".nan"])
def test_text_that_looks_like_something_else_survives_every_reader(text: str) -> None:
    written = yaml_text.write({"x": text})
    assert yaml_text.read(written) == {"x": text} == yaml.safe_load(written)


@pytest.mark.parametrize("override", ["run=a # b", "run=#b", "images.uri=/a/b #3", "predict.log_sum_exp=[1] # two"])
def test_a_comment_in_an_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(SettingsError, match="put the value in quotes"):
        settings(tmp_path, CONFIG, override)


def test_dates_and_exponents_in_overrides_keep_their_type(tmp_path: Path) -> None:
    found = settings(tmp_path, CONFIG, "run=2026-11-27", "predict.temperature=1e-1", "images.uri=2026-11-27")
    assert (found.run, found.predict.temperature, found.images.uri) == ("2026-11-27", 0.1, "2026-11-27")
    assert settings(tmp_path, dump(found)) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: a\nmodel: m\nrun: b\n", "'run' occurs twice, in lines 1 and 3"),
        ("images:\n  uri: a\n  uri: b\n", "'uri' occurs twice, in lines 2 and 3"),
        ("images: " + "[" * 5000 + "]" * 5000, "nested more than 50 deep"),
        ("images: " + "{a: " * 5000 + "1" + "}" * 5000, "nested more than 50 deep"),
        ("a: &a [*a]\n", "alias that contains itself"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "more than 100,000",
        ),
        ("run: 123\nmodel: m\nimages: {uri: u}\n", r"run: text, but found the number 123; put it in quotes"),
        ("model: m\nrun: no\nimages: {uri: u}\n", "put text between quotes"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("- a\n", "a config is a mapping"),
        ("", "a config is a mapping"),
        ("a: \x00", "not valid YAML"),
        ("1: 2\n", "keys should be strings|valid string"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(tmp_path, text)


def test_anchors_and_merges_still_work() -> None:
    assert yaml_text.read("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    settings(tmp_path)
    with pytest.raises(SettingsError, match=r"a folder, not a config; it has config\.yaml"):
        load(PredictJobSettings, tmp_path)
    with pytest.raises(SettingsError, match="no such config"):
        load(PredictJobSettings, tmp_path / "config.yaml" / "x")
    (tmp_path / "wide.yaml").write_bytes(CONFIG.encode("utf-16"))
    with pytest.raises(SettingsError, match="save the config as UTF-8"):
        load(PredictJobSettings, tmp_path / "wide.yaml")
    (tmp_path / "marked.yaml").write_bytes(CONFIG.encode("utf-8-sig"))
    assert load(PredictJobSettings, tmp_path / "marked.yaml").run == "r"
    with pytest.raises(SettingsError, match="nested more than 50 deep"):
        settings(tmp_path, CONFIG, "images.exclude=" + "[" * 5000 + "]" * 5000)
