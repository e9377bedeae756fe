"""Loads the extension module so that it leaves the program's signal handlers alone.

A library that libfabric brings along (libinfinipath) replaces the handlers of SIGINT, SIGTERM, SIGSEGV and others when it
is loaded, by one that ends the process: Ctrl-C would raise no KeyboardInterrupt any more. A variable of its own says
not to.
"""

import os

_VARIABLE = "IPATH_NO_BACKTRACE"

_before = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "1"
try:
    from switchyard import _core  # noqa: F401
finally:
    if _before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _before
