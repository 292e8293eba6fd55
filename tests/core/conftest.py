"""A core test that fails shows the conversation that it had with the core."""

from collections.abc import Generator

import pytest

from tests.core import transcript


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The conversations of the test before are no longer of interest."""
    transcript.latest.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the conversations to the report of a failure."""
    report = yield
    if call.when == "call" and report.failed:
        shown = list(transcript.latest)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            shown = shown[-1:]  # the smallest example that fails is the last one tried
        for number, one in enumerate(shown, 1):
            report.sections.append((f"conversation {number} of {len(shown)} with the core", one.text()))
    return report
