"""Ray that does not start or does not answer: a sentence, not a traceback."""

import pytest
import ray

from engine.ground.session import connect
from engine.settings.cluster import ClusterSettings


@pytest.mark.parametrize(
    ("raised", "address", "told"),
    [
        (Exception("The current node timed out during startup. This could happen …"), None, "this machine is busy"),
        (ConnectionError("nobody there"), "10.0.0.1:6379", "no Ray cluster answers at '10.0.0.1:6379'"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence(
    raised: Exception, address: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=told), connect(ClusterSettings(address=address)):
        pass


def test_what_is_no_persons_mistake_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match="a bug"), connect(ClusterSettings()):
        pass
