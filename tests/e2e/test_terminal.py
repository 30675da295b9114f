"""`wrenn run -t`, driven through a terminal of the test's own as a person would."""

import signal
import termios

import pytest

from screen import Screen as AnyScreen
from wrenn_command import wrenn

# Says that it runs, which is when the terminal's signals are its own; the quotes tell the words
# that are printed from those that are typed.
SLEEP = "sh -c 'echo run_''ning; exec sleep 1000'\n"


class Screen(AnyScreen):
    """`wrenn run -t` in it."""

    def __init__(self, data_dir, *command, **size):
        super().__init__(data_dir, "run", "--template", "busybox", "-t", *command, **size)


@pytest.fixture
def open_screen(data_dir):
    opened = []

    def call(*command, **size):
        opened.append(Screen(data_dir, *command, **size))
        return opened[-1]

    yield call
    for screen in opened:
        screen.close()


def test_a_shell_with_size_colours_job_control_and_its_own_end(open_screen):
    screen = open_screen("--", "sh", rows=33, cols=101)
    screen.wait_for(r"\$ ")
    screen.type("stty size; tty; echo $TERM; printf '\\033[31mred\\033[0m\\n'\n")
    screen.wait_for(r"33 101\r\n/dev/pts/\d+\r\nvt100\r\n\x1b\[31mred\x1b\[0m\r\n")
    assert termios.tcgetattr(screen.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0

    screen.type(SLEEP)
    screen.wait_for("run_ning\r\n")
    screen.type("\x03")  # Ctrl-C is the command's, not ours
    screen.wait_for(r"\$ ")
    screen.type("echo code=$?\n")
    screen.wait_for("code=130\r\n")

    screen.type(SLEEP)
    screen.wait_for("run_ning\r\n")
    screen.type("\x1a")  # Ctrl-Z
    screen.wait_for("Stopped")
    screen.type("kill -9 %1; wait %1; exit 42\n")
    assert screen.child.wait(60) == 42
    assert termios.tcgetattr(screen.slave) == screen.before


def test_a_changed_size_reaches_the_command(open_screen):
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done"
    screen = open_screen("--", "sh", "-c", script)
    screen.wait_for("ready\r\n")
    screen.resize(50, 132)
    screen.wait_for("50 132\r\n")
    assert screen.child.wait(60) == 0


def test_the_terminal_is_restored_when_we_are_told_to_end(open_screen):
    screen = open_screen("--", "sh", "-c", "echo ready; sleep 1000")
    screen.wait_for("ready\r\n")
    screen.child.send_signal(signal.SIGTERM)
    assert screen.child.wait(60) == 143
    assert termios.tcgetattr(screen.slave) == screen.before


def test_without_a_terminal_it_is_refused(data_dir):
    done = wrenn(data_dir, "run", "-t", "--", "true")
    assert done.returncode == 125
    assert "a terminal is needed" in done.stderr
    assert "wrenn exec -i" in done.stderr
