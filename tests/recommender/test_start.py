"""What the start of a process loads: a crawl, a worker and a command begin in the time that this takes."""

import os
import subprocess
import sys


def test_a_process_that_does_not_recommend_loads_no_numpy() -> None:
    program = "import sys, django; django.setup(); print([name for name in ('numpy', 'scipy') if name in sys.modules])"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "bookapi.settings"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
