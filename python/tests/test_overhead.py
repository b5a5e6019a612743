"""The measurement of what a call costs the client runs; its numbers are for quiet machines."""

import re
import subprocess
import sys

from conftest import PATIENCE, REPOSITORY


def test_the_measurement_runs():
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "bench" / "overhead.py"), "5"],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    rows = re.findall(r"^(byzerllm|openai), (embedded|loopback)\s+[\d ]*?(-?\d+)$", done.stdout, re.MULTILINE)
    assert [row[:2] for row in rows] == [
        ("byzerllm", "embedded"),
        ("byzerllm", "loopback"),
        ("openai", "loopback"),
    ], done.stdout
    assert int(rows[0][2]) > 0 and ("goals" in done.stdout)
