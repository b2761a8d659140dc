"""A score goes to JSON and back, and reads as a sentence."""

import json

import pytest

from engine.metrics.score import Score

SCORE = Score("mean_average_precision", 0.852, 0.803, 0.891, 250, 3, {"cat": 0.9}, 0.02, {"macro_f1": [0.5, 0.4, 0.6]})


def test_a_score_survives_json() -> None:
    assert Score.from_json(json.loads(json.dumps(SCORE.to_json()))) == SCORE
    with pytest.raises(KeyError, match="value"):
        Score.from_json({"name": "accuracy"})


def test_a_score_says_how_many_images_it_stands_on() -> None:
    assert str(SCORE) == "mean average precision 85.2 % (95 % CI 80.3-89.1, 250 images, 3 unreadable)"
    assert Score("mean_iou", 0.5, 0.4, 0.6, 1000).title == "mean IoU"
