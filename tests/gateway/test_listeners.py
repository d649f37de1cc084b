"""How many sockets a gateway may have."""

import resource
import subprocess
import sys

LOWERED = """
import resource
from gateway.listeners import more_files
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
print(more_files(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], more_files())
"""


def test_process_may_open_as_many_files_as_it_was_allowed_to() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    told = subprocess.run([sys.executable, "-c", LOWERED], capture_output=True, text=True, check=True).stdout.split()
    wanted = 1_048_576 if hard == resource.RLIM_INFINITY else min(hard, 1_048_576)
    assert told == [str(wanted)] * 3
