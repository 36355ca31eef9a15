"""Random edits through every door, and not one that takes a key outside its policy.

`python -m tests.faults.policies --edits 10000` is the long form; `tests/keys/test_policy_doors.py` runs a
short one. A key outside its policy ends it with the edit that did it and the history before.
"""

import argparse
import os
import time

from tests.faults import alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=10_000)
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (_, folder):
        from django.conf import settings
        from django.test.utils import setup_test_environment

        from tests.keys import doors

        setup_test_environment()
        settings.USAGE_JOURNAL_DIR = folder / "journal"
        settings.USAGE_JOURNAL_DIR.mkdir()
        began = time.monotonic()
        tally = doors.run(settings.USAGE_JOURNAL_DIR, options.edits)
        seconds = time.monotonic() - began
        print(
            f"{tally['edits']:,} edits in {tally['histories']} histories and {seconds:.0f} s: "
            f"{tally['refused']:,} refused, {tally['changed']:,} changed a key, none took one outside its "
            f"policy; after {tally['outside']:,} an older key was outside a policy that came later"
        )


if __name__ == "__main__":
    main()
