"""A reader of the output that goes away ends a command in a sentence, whoever writes the next line."""

import os
import subprocess
import sys

COMMAND = """
import logging, sys
from sdn.errors import door
@door
def main():
    logging.basicConfig(stream=sys.stdout, level="INFO")
    print("first", flush=True)
    sys.stdin.readline()
    logging.info("to nobody")
    print("second", flush=True)
sys.exit(main())
"""


def test_neither_print_nor_logging_shows_a_traceback():
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", COMMAND], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "first\n"
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.flush()
    error = process.stderr.read()
    assert process.wait(60) == 141
    assert error == "stopped: nobody reads the output any more\n"


def test_a_console_that_was_closed_from_the_start_takes_everything():
    command = COMMAND.replace("sys.stdin.readline()", "print(sys.stdout.isatty(), file=sys.stderr)")
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, timeout=60, preexec_fn=lambda: os.close(1)
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "False")
    assert "Traceback" not in done.stderr
