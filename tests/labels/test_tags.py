"""Hashtags: synonyms that do not depend on order, k-hot targets and their floor, draws against closed forms."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.fit.losses import sparse_soft_ce
from engine.labels.classes import ClassList
from engine.labels.tags import (
    Synonyms,
    TaggedImages,
    canonicalise,
    find_ambiguous,
    image_factors,
    normalise_tag,
    read_synonyms,
    replication,
    round_randomly,
    threshold_for,
)
from engine.labels.targets import Targets, dense
from engine.recipes.tagging import TagSettings, as_targets

PAIRS = [("#BrownBear", "bear"), ("ursus arctos", "brown_bear"), ("grizzly", "bear"), ("Tabby", "cat"), ("cat", "cat")]


def test_synonyms_have_one_name_for_any_order_of_the_table() -> None:
    for order in permutations(PAIRS):
        name = Synonyms(order)
        assert {name(tag) for tag in ("#ursusarctos", "Brown Bear", "GRIZZLY", "bear")} == {"bear"}
        assert name("tabby") == "cat"
        assert name("#Dog") == "dog"


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"))), st.randoms())
def test_canonicalising_is_idempotent_and_order_independent(pairs: list[tuple[str, str]], random: object) -> None:
    one = Synonyms(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = Synonyms(shuffled)
    for tag in "abcdefghz":
        assert one(one(tag)) == one(tag) == other(tag)
    for tag, canonical in pairs:
        assert one(tag) == one(canonical)


def test_a_word_of_several_meanings_is_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("bat", "chiropteran"), ("Bat", "baseball_bat"), ("cat", "feline"), ("#cat", "Feline")]
    assert find_ambiguous(pairs) == {"bat": ["baseballbat", "chiropteran"]}
    pq.write_table(
        pa.table(dict(zip(("tag", "canonical"), zip(*pairs, strict=True), strict=True))), tmp_path / "s.parquet"
    )
    assert read_synonyms(str(tmp_path / "s.parquet"))("chiropteran") == "baseballbat"
    assert (
        "1 tags have several canonical names, which are merged into one class each (bat: baseballbat, chiropteran)"
        in capsys.readouterr().out
    )


def test_marks_case_and_width_are_ignored() -> None:
    assert normalise_tag("#Brown-Bear") == normalise_tag("brown_bear") == normalise_tag("BROWN BEAR") == "brownbear"
    assert normalise_tag("\uff23at") == "cat"
    assert normalise_tag("###") == ""


def test_lists_and_text_give_the_same_tags_once_each() -> None:
    text = pa.chunked_array([["#Cat, tabby #dog", "", None, "fox"], ["dog;dog", "## bear"]])
    lists = pa.chunked_array([[["#Cat", "tabby", "#dog"], [], None, ["fox"], ["dog", "dog"], ["##", "bear"]]])
    for column in (text, lists):
        tagged = canonicalise(column, Synonyms(PAIRS))
        assert tagged.vocabulary.names == ("bear", "cat", "dog", "fox")
        assert tagged.lengths.tolist() == [2, 0, 0, 1, 1, 1]
        assert tagged.flat.tolist() == [1, 2, 3, 2, 0]
        assert tagged.counts.tolist() == [1, 1, 2, 1]


def test_a_vocabulary_is_given_or_made_of_frequent_tags() -> None:
    column = pa.chunked_array([["a b", "a c", "a b d"]])
    assert canonicalise(column, Synonyms(), min_images=2).vocabulary.names == ("a", "b")
    assert canonicalise(column, Synonyms(), max_tags=3).vocabulary.names == ("a", "b", "c")
    tagged = canonicalise(column, Synonyms(), given=["#D", "c", "never"])
    assert (tagged.vocabulary.names, tagged.lengths.tolist()) == (("c", "d", "never"), [0, 1, 1])
    with pytest.raises(ValueError, match="vocabulary of 1"):
        canonicalise(column, Synonyms(), min_images=3)


def zipf(tags: int = 40) -> TaggedImages:
    """Images of one tag each, tag h on about 2000 / (h + 1) of them."""
    counts = (2000 / (np.arange(tags) + 1)).astype(np.int64)
    names = ClassList(tuple(f"t{i:03d}" for i in range(tags)))
    return TaggedImages(names, np.ones(counts.sum(), np.int64), np.repeat(np.arange(tags), counts))


@pytest.mark.parametrize("t", [0.0, 60.0, 300.0, 5000.0])
def test_draws_on_a_zipf_toy_are_the_closed_forms(t: float) -> None:
    tagged, f = zipf(), zipf().counts
    assert image_factors(tagged, t, "uniform").sum() == pytest.approx(np.maximum(f, t).sum())
    assert image_factors(tagged, t, "sqrt").sum() == pytest.approx(np.maximum(f, np.sqrt(t * f)).sum())
    assert image_factors(tagged, t, "natural").sum() == f.sum()


@pytest.mark.parametrize("how", ["sqrt", "uniform"])
def test_rarer_tags_are_drawn_more_often_and_the_list_has_the_wanted_length(how: str) -> None:
    tagged = zipf()
    length = 2.5 * len(tagged.lengths)
    t = threshold_for(tagged, length, how)  # type: ignore[arg-type]
    factors = image_factors(tagged, t, how)  # type: ignore[arg-type]
    assert factors.sum() == pytest.approx(length, rel=1e-6)
    assert (np.diff(replication(tagged.counts, t, how)) >= 0).all()  # type: ignore[arg-type]
    coin = np.random.default_rng(0).random(len(factors))
    spread = np.sqrt(((factors % 1) * (1 - factors % 1)).sum())
    assert abs(round_randomly(factors, coin).sum() - length) < 3 * spread + 1
    assert np.abs(round_randomly(factors, coin) - factors).max() < 1


def test_an_image_follows_its_rarest_tag_and_one_without_tags_is_not_drawn() -> None:
    names = ClassList(("common", "rare"))
    tagged = TaggedImages(names, np.array([1, 0, 2, 1, 1]), np.array([0, 0, 1, 0, 0]))
    assert image_factors(tagged, 4.0, "uniform").tolist() == [1, 0, 4, 1, 1]
    assert threshold_for(tagged, 4, "uniform") == 0


def test_k_tags_are_k_entries_and_their_floor_is_log_k() -> None:
    column = pa.chunked_array([["a b", "c", "a b c d e"]])
    addresses = pa.table({"shard": pa.array([0, 0, 0], pa.int32()), "row": pa.array([0, 1, 2], pa.int32())})
    table = as_targets(
        canonicalise(column, Synonyms()), addresses, TagSettings(table="t", resample="natural", length=1)
    )
    assert table["count"].to_pylist() == [1, 1, 1]
    for classes, weights in zip(table["classes"].to_pylist(), table["weights"].to_pylist(), strict=True):
        k = len(classes)
        target = torch.tensor([weights], dtype=torch.float64)
        logits = torch.full((1, 5), -60.0, dtype=torch.float64)
        logits[0, classes] = 0.0
        logits.requires_grad_()
        loss = sparse_soft_ce(logits, torch.tensor([classes]), target)
        assert loss.item() == pytest.approx(np.log(k), abs=1e-6)
        assert torch.autograd.grad(loss.sum(), logits)[0].abs().max() < 1e-6
    total = dense(Targets(table["classes"].combine_chunks(), table["weights"].combine_chunks()), 5).sum(1)
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_images_without_tags_have_no_target() -> None:
    column = pa.chunked_array([["a", "", "b"]])
    addresses = pa.table({"shard": pa.array([0, 0, 3], pa.int32()), "row": pa.array([5, 6, 7], pa.int32())})
    table = as_targets(canonicalise(column, Synonyms()), addresses, TagSettings(table="t"))
    assert table.select(["shard", "row"]).to_pylist() == [{"shard": 0, "row": 5}, {"shard": 3, "row": 7}]
