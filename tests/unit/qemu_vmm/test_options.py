import pytest

from wrennd.qemu_vmm.machine import Accel
from wrennd.qemu_vmm.options import ExitCode, Stop, help_text, parse


def test_defaults_are_firecrackers():
    options = parse([])
    assert options.api_socket == "/run/firecracker.socket"
    assert options.id == "anonymous-instance"
    assert options.max_body == 51_200
    assert options.accel is Accel.TCG
    assert options.logger.level is None


EVERYTHING = (
    "--api-sock /s --id a-1 --accel kvm --qemu /q --level WARN --show-level --log-path /l "
    "--metrics-path /m --module x --http-api-max-payload-size 7 --boot-timer --mmds-size-limit 9"
)


def test_all_that_is_given_arrives():
    options = parse(EVERYTHING.split())
    assert (options.api_socket, options.id, options.accel) == ("/s", "a-1", Accel.KVM)
    assert (options.logger.level, options.logger.show_level) == ("WARN", True)
    assert options.logger.show_log_origin is None
    assert (options.metrics_path, options.max_body) == ("/m", 7)


def test_without_an_api_there_is_no_socket():
    assert parse(["--no-api", "--config-file", "/c"]).api_socket is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--accel", "hvf"], ExitCode.BAD_ARGUMENTS),
        (["--http-api-max-payload-size", "many"], ExitCode.BAD_ARGUMENTS),
        (["--http-api-max-payload-size", "²"], ExitCode.BAD_ARGUMENTS),
        (["--start-time-us", "-1"], ExitCode.BAD_ARGUMENTS),
        (["--enable-pci"], ExitCode.BAD_ARGUMENTS),
        (["--level", "loud"], ExitCode.BAD_CONFIGURATION),
    ],
)
def test_what_can_not_be(arguments, code):
    with pytest.raises(Stop) as caught:
        parse(arguments)
    assert caught.value.code is code


def test_help_and_version_win_over_anything():
    assert parse(["--nonsense", "-h"]).wants_help
    assert parse(["--nonsense", "--version"]).wants_version
    assert "--accel <value>" in help_text()
