"""How often property tests try: by the profile, `dev` (the default) or `ci` (where CI is set in the environment).

`pytest --hypothesis-profile=ci` chooses by hand. A test that needs another number than the profile's says
`@settings(max_examples=examples(1_000))`: 1,000 in CI, and fewer in the same proportion while developing.
"""

import os

from hypothesis import HealthCheck, settings

CI_EXAMPLES = 100
DEV_EXAMPLES = 20


def register_profiles() -> None:
    """Called once, before the tests are collected; what the command line names is loaded after this."""
    # How long it takes to draw an example, or to try one, says something of a busy machine and nothing of the program.
    settings.register_profile("base", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    base = settings.get_profile("base")
    settings.register_profile("dev", base, max_examples=DEV_EXAMPLES)
    settings.register_profile("ci", base, max_examples=CI_EXAMPLES, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "dev")


def examples(in_ci: int) -> int:
    """How many to try with the profile in force, for a test that tries `in_ci` in CI."""
    return max(1, in_ci * settings().max_examples // CI_EXAMPLES)
