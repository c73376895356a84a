from __future__ import annotations

import errno
import os

import pytest

from labkit.linux.fds import Fd, pipe


def is_open(number: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_a_descriptor_is_closed_once_and_becomes_minus_one() -> None:
    fd = Fd(os.open("/dev/null", os.O_RDONLY))
    number = fd.number
    assert is_open(number)
    fd.close()
    assert fd.number == fd.fileno() == -1
    assert not is_open(number)


def test_closing_twice_does_not_close_who_got_the_number_next() -> None:
    fd = Fd(os.open("/dev/null", os.O_RDONLY))
    number = fd.number
    fd.close()
    with Fd(os.open("/dev/zero", os.O_RDONLY)) as next_owner:
        assert next_owner.number == number, "the kernel gives out the lowest free number"
        fd.close()
        assert is_open(number)


def test_leaving_the_block_closes_also_after_an_error() -> None:
    with pytest.raises(KeyError), Fd(os.open("/dev/null", os.O_RDONLY)) as fd:
        number = fd.number
        raise KeyError("whatever")
    assert not is_open(number)


def test_a_detached_descriptor_belongs_to_the_caller() -> None:
    with Fd(os.open("/dev/null", os.O_RDONLY)) as fd:
        number = fd.detach()
    assert is_open(number)
    os.close(number)


def test_a_descriptor_that_somebody_else_closed_is_reported_and_not_tried_again() -> None:
    fd = Fd(os.open("/dev/null", os.O_RDONLY))
    os.close(fd.number)
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        fd.close()
    assert raised.value.errno == errno.EBADF
    fd.close()


def test_a_pipe_carries_bytes_and_does_not_outlive_exec() -> None:
    reader, writer = pipe()
    with reader, writer:
        os.write(writer.number, b"through")
        assert os.read(reader.fileno(), 100) == b"through"
        assert not os.get_inheritable(reader.number)
        assert not os.get_inheritable(writer.number)


def test_os_takes_the_object_where_it_takes_a_descriptor() -> None:
    import select

    reader, writer = pipe()
    with reader, writer:
        os.write(writer.number, b"x")
        assert select.select([reader], [], [], 1)[0] == [reader]


def test_it_shows_its_number() -> None:
    assert repr(Fd(-1)) == "Fd(-1)"
