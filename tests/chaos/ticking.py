"""A program that says what it was given, again and again, and that it was told to stop."""

import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("stopped", flush=True)))
while True:
    print(*sys.argv[1:], os.environ["NAME"], flush=True)
    time.sleep(0.02)
