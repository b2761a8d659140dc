"""Ray that does not start or does not answer: a sentence, not a traceback."""

import pytest
import ray

from engine.ground.session import connect
from engine.settings.cluster import ClusterSettings


@pytest.mark.parametrize(
    ("raised", "address", "message"),
    [
        (Exception("The current node timed out during startup. This could happen …"), None, "the host is busy"),
        (ConnectionError("nobody there"), "10.0.0.1:6379", "cluster.address='10.0.0.1:6379': no Ray cluster answers"),
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
