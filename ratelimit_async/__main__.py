"""`python -m ratelimit_async`."""

import sys

from ratelimit_async._cli import main

sys.exit(main())
