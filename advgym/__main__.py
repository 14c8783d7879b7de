"""`python -m advgym` is `advgym`."""

import signal
import sys


def start() -> int:
    """The command line; Ctrl-C while it is being loaded is no traceback, either."""
    try:
        from advgym.cli.app import main
    except KeyboardInterrupt:
        sys.stderr.write("advgym: interrupted: nothing was started\n")
        return 130
    code = main()
    if code == 130:  # what is left is the end of the process
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(start())
