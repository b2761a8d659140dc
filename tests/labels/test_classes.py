"""The class list: order, hash, and errors that name the differences."""

import pyarrow as pa
import pytest

from engine.labels.classes import ClassList


def test_names_are_sorted_numerically_when_all_are_numbers() -> None:
    """10 comes after 9 for digits; one word makes it alphabetical."""
    assert ClassList.from_names(["10", "9", "1", "9"]).names == ("1", "9", "10")
    assert ClassList.from_names(["10", "9", "cat"]).names == ("10", "9", "cat")


def test_hash_follows_names_and_order() -> None:
    """Same names, same hash; another order or another split of the letters, another hash."""
    hashes = {ClassList(names).hash for names in [("a", "b"), ("b", "a"), ("ab", ""), ('a", "b', "")]}
    assert len(hashes) == 4
    assert ClassList(("a", "b")).hash == ClassList.from_names(["b", "a"]).hash
    assert len(ClassList(("a", "b")).hash) == 16


def test_invalid_lists_raise() -> None:
    """Fewer than two classes or a repeated name cannot be a class list."""
    with pytest.raises(ValueError, match="at least 2 classes, found 1: 'cat'"):
        ClassList(("cat",))
    with pytest.raises(ValueError, match="more than once: 'cat'"):
        ClassList(("cat", "dog", "cat"))


def test_index_suggests_the_nearest_name() -> None:
    """The error for a mistyped class suggests the closest name."""
    manifest = ClassList(("tench", "goldfish"))
    assert manifest.index("goldfish") == 1
    with pytest.raises(ValueError, match="did you mean 'goldfish'"):
        manifest.index("goldfisch")


def test_indices_of_a_column() -> None:
    """A label column becomes indices, nulls become -1, unknown names are listed."""
    manifest = ClassList(("a", "b"))
    assert manifest.indices(pa.array(["b", None, "a"]), "labels").tolist() == [1, -1, 0]
    with pytest.raises(ValueError, match=r"set\.parquet: 1 names are not among the 2 classes: 'c'"):
        manifest.indices(pa.array(["b", "c"]), "set.parquet")


def test_check_same_names_the_differences() -> None:
    """Missing and added names, or the first position at which the order differs."""
    manifest = ClassList(("a", "b", "c"))
    manifest.check_same(ClassList(("a", "b", "c")), "x")
    with pytest.raises(ValueError, match=r"checkpoint: .* it lacks 'c'; it adds 'd', 'e'"):
        manifest.check_same(ClassList(("a", "b", "d", "e")), "checkpoint")
    with pytest.raises(ValueError, match="first at index 1: 'b' here, 'c' there"):
        manifest.check_same(ClassList(("a", "c", "b")), "checkpoint")
