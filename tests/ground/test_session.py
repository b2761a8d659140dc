"""Ray that does not start or does not answer: a sentence, not a traceback."""

import socket

import pytest
import ray

from engine.ground.session import answers, connect
from engine.settings.cluster import ClusterSettings


@pytest.mark.parametrize(
    ("raised", "address", "message"),
    [
        (Exception("The current node timed out during startup. This could happen …"), None, "the host is busy"),
        (ConnectionError("nobody there"), "auto", "cluster.address='auto': no Ray cluster answers"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_sentence(
    raised: Exception, address: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=message), connect(ClusterSettings(address=address)):
        pass


def test_any_other_error_is_raised_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match="a bug"), connect(ClusterSettings()):
        pass


@pytest.fixture
def dead_port() -> str:
    """An address at which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_refused_before_ray_waits_for_it(
    scheme: str, dead_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise AssertionError("Ray was asked")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    address = scheme + dead_port
    with (
        pytest.raises(ValueError, match=f"cluster.address='{address}'.*leave cluster.address empty"),
        connect(ClusterSettings(address=address)),
    ):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=f"RAY_ADDRESS='{address}'.*unset RAY_ADDRESS"), connect(ClusterSettings()):
        pass


def test_a_listening_address_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers(f"127.0.0.1:{server.getsockname()[1]}")
    assert answers("auto")
    assert answers("local")
    assert not answers("127.0.0.1:99999")
