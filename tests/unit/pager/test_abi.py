"""Sizes and numbers of the kernel's interface, composed as linux/ioctl.h does."""

import pytest

from wrennd.pager import abi

READ, WRITE = 2, 1


@pytest.mark.parametrize(
    ("number", "direction", "nr", "argument"),
    [
        (abi.UFFDIO_WAKE, READ, 0x02, abi.RANGE),
        (abi.UFFDIO_COPY, READ | WRITE, 0x03, abi.COPY),
        (abi.UFFDIO_ZEROPAGE, READ | WRITE, 0x04, abi.ZEROPAGE),
    ],
)
def test_ioctl_numbers(number, direction, nr, argument):
    assert number == direction << 30 | argument.size << 16 | 0xAA << 8 | nr


def test_results_are_the_last_word():
    assert abi.COPY.size - 8 == abi.COPY_DONE
    assert abi.ZEROPAGE.size - 8 == abi.ZEROPAGE_DONE
    assert abi.MESSAGE.size == 32
