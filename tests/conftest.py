"""What every test sees: the repository's root on the path, one fixed and odd time zone, no site settings of the machine."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["TZ"] = "Asia/Kathmandu"  # +05:45: a rule that leans on the machine's zone fails here
time.tzset()
for name in ("PALMARES_SITES", "PALMARES_MAPPINGS", "PALMARES_TIME_ZONE", "PALMARES_SITE_KEY"):
    os.environ.pop(name, None)
