"""Real pi for the tests of this folder; see provision.py and scripted_model.py."""

import pytest

from tests.real_pi import provision


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Downloads before the first test, whose time limit is not meant for that; not where tests are only collected."""
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker("pi") for item in session.items):
        provision.provide_all()


@pytest.fixture(params=[pytest.param(v, id=v, marks=pytest.mark.pi) for v in provision.VERSIONS])
def pi(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that is pi, in each of the four generations: node and pi's script.

    The last member alone is fit for `--pi`.
    """
    found = provision.provide(request.param)
    provision.use(found, monkeypatch)
    return found.command


@pytest.fixture(autouse=True)
def leftover_check(no_leftovers: None) -> None:
    """Every test here starts processes."""
