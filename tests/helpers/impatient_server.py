"""``python -m longhand_server`` that waits a second, not ten, for a worker that does not end."""

from __future__ import annotations

import sys

from longhand_server import supervisor
from longhand_server.__main__ import main

supervisor._PATIENCE_S = 1.0
sys.exit(main())
