"""Data, training, evaluation, language models and export of Longhand's recogniser."""

import itertools
import signal
import sys

import longhand_server  # noqa: F401  # what it tells OpenCV and ONNX Runtime must stand before they are imported

# PyTorch takes seconds to import, and Ctrl-C would end them with its traceback. From main() on a command knows better
# (exit_status in command_line.py). Other programs that import this keep their handlers.
if (
    any(a == "-m" and b.startswith(f"{__name__}.") for a, b in itertools.pairwise(sys.orig_argv))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
