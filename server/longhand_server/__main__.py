"""``python -m longhand_server``: the command line of the server."""

from __future__ import annotations

from longhand_server.interrupts import quit_on_interrupt, raise_on_interrupt

if __name__ == "__main__":
    quit_on_interrupt()  # before the rest is imported

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable

from longhand_server.errors import ConfigurationError, LonghandError
from longhand_server.logs import set_up_logging
from longhand_server.memory import keep_freed_memory
from longhand_server.settings import parse_arguments, to_toml, unknown_variables
from longhand_server.standard_streams import open_closed_streams
from longhand_server.supervisor import SUPERVISED, Supervisor
from longhand_server.workers import end_process

_LOG = logging.getLogger("longhand_server")


def main() -> int:
    """Runs the server; returns the exit code: 0, 1 (could not start), 2 (wrong settings) or 130 (Ctrl-C)."""
    open_closed_streams()
    # Until the server knows what to do about them. In a container this is process 1, for which the kernel takes
    # signals that nobody has asked for to be of no interest.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    in_json = False
    try:
        config, arguments = parse_arguments(sys.argv[1:], os.environ)
        if arguments.print_config:
            print(to_toml(config), end="", flush=True)
            return 0
        set_up_logging(config.observe)
        in_json = config.observe.log_format == "json"
        if SUPERVISED not in os.environ:
            for name in unknown_variables(os.environ):
                _LOG.warning("%s is no setting and has no effect", name)
        # A worker thread hands the interpreter back to the event loop five times sooner than by default.
        sys.setswitchinterval(0.001)
        if config.listen.workers > 1:
            return asyncio.run(Supervisor(config).run())
        keep_freed_memory()
        # Imported late: --help and --print-config need no gRPC, OpenCV or ONNX Runtime.
        choose_poller()
        # What it says of damaged images is for its own developers; clients are told by the server.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        if in_json:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines are no JSON
        from longhand_server.server import serve

        raise_on_interrupt()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(config, supervised=SUPERVISED in os.environ))
    except LonghandError as error:
        _say_why(str(error), in_json=in_json)
        return 2 if isinstance(error, ConfigurationError) else 1
    except ModuleNotFoundError as error:
        _say_why(f"{error}: pip install '.[server]' in Longhand's folder", in_json=in_json)
        return 1
    except (OSError, ImportError) as error:  # too few open files, a full disk, no memory for a library
        _say_why(f"the system does not let it go on: {error}", in_json=in_json)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _say_why(text: str, *, in_json: bool) -> None:
    """Says in one line why the server ends."""
    if in_json:
        _LOG.critical("%s", text)
        return
    with contextlib.suppress(OSError):
        # In one write: several workers may say it at once, and print() writes the end of the line separately.
        sys.stderr.write(f"longhand_server: {text}\n")


def choose_poller() -> None:
    """Lets gRPC use its older poller, unless somebody chose already; to be called before gRPC is imported.

    It hands a message over between fewer threads, which takes 0.06 ms of CPU time less. From 1.83 on gRPC has no
    other than the new one, and complains of who asks.
    """
    version = importlib.metadata.version("grpcio").split(".")
    if [int(part) for part in version[:2]] < [1, 83]:
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_poller_for_python")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    # gRPC on uvloop takes about half the CPU time a call.
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    end_process(main())
