"""``python -m trime_fairseq`` prints the folder to pass to ``--user-dir``."""

import os
import sys

sys.stdout.write(os.path.dirname(os.path.abspath(__file__)) + "\n")
