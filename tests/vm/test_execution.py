"""Commands through the agent, which runs here as an ordinary process: streams, ends, time limits, refusals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from labkit.errors import DeadlineExceeded, GuestError, InvalidSpec, SetupError
from labkit.vm.execution import Execution, GuestResult
from tests.vm.local_agent import LocalAgent, local_agent

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the agent is written for x86-64")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    """An agent for all tests of this module."""
    with local_agent(tmp_path_factory.mktemp("agent")) as made:
        yield made


def run(
    agent: LocalAgent, *command: str, stdin: bytes = b"", timeout_s: float = 20.0, cwd: str = "/",
    env: Mapping[str, str] | None = None,
) -> GuestResult:  # fmt: skip
    return Execution(agent.port, "x86_64", command, stdin=stdin, cwd=cwd, env=env or {}).run(timeout_s)


def test_the_streams_come_back_apart_and_the_status_with_them(agent: LocalAgent) -> None:
    result = run(agent, "sh", "-c", "printf out; printf err >&2; exit 7")
    assert (result.status, result.stdout, result.stderr) == (7, b"out", b"err")


def test_a_signal_is_a_status_above_128(agent: LocalAgent) -> None:
    assert run(agent, "sh", "-c", "kill -TERM $$").status == 128 + 15


@hypothesis.given(strategies.binary(max_size=300_000))
@hypothesis.settings(max_examples=30)
def test_every_byte_comes_back_through_cat(agent: LocalAgent, data: bytes) -> None:
    assert run(agent, "cat", stdin=data).stdout == data


def test_standard_error_is_as_exact_as_standard_output(agent: LocalAgent) -> None:
    data = bytes(range(256)) * 2000
    result = run(agent, "sh", "-c", "tee /dev/stderr", stdin=data)
    assert (result.stdout, result.stderr) == (data, data)


def test_a_command_that_does_not_read_its_input_is_not_waited_for(agent: LocalAgent) -> None:
    assert run(agent, "true", stdin=bytes(1 << 20)).status == 0
    assert run(agent, "head", "-c", "3", stdin=b"abcdef" * 100_000).stdout == b"abc"


def test_a_command_without_input_reads_an_end_of_file(agent: LocalAgent) -> None:
    assert run(agent, "cat", timeout_s=10).stdout == b""


def test_arguments_environment_and_folder_arrive_as_given(agent: LocalAgent, tmp_path: Path) -> None:
    words = ["", "a b", "'\"$x\n", "ä", "\udcff"]
    result = run(agent, "printf", "%s\\0", *words)
    assert result.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)
    assert run(agent, "sh", "-c", 'printf "$COLOUR in "; pwd', env={"COLOUR": "blue"}, cwd=str(tmp_path)).text == (
        f"blue in {tmp_path}\n"
    )


def test_what_cannot_be_run_is_named(agent: LocalAgent, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="could not run 'no-such-program': No such file") as caught:
        run(agent, "no-such-program")
    assert caught.value.step == "execve"
    (tmp_path / "plain").write_text("x")
    with pytest.raises(SetupError, match="Permission denied"):
        run(agent, str(tmp_path / "plain"))
    with pytest.raises(SetupError, match="has no folder /nowhere"):
        run(agent, "true", cwd="/nowhere")
    with pytest.raises(InvalidSpec, match="no command"):
        run(agent)
    with pytest.raises(InvalidSpec, match="zero byte"):
        run(agent, "echo", "a\0b")
    with pytest.raises(InvalidSpec, match="shorten"):
        run(agent, "echo", "x" * 600_000)
    assert run(agent, "echo", "still there").text == "still there\n"


def test_a_program_may_itself_end_with_127(agent: LocalAgent) -> None:
    assert run(agent, "sh", "-c", "exit 127").status == 127


def test_a_time_limit_kills_the_whole_group(agent: LocalAgent, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"took longer than 0\.5 s"):
        run(agent, "sh", "-c", f"sleep 300 & echo $! $$ > {note}; wait", timeout_s=0.5)
    assert time.monotonic() - started_s < 10
    pids = note.read_text().split()
    deadline_s = time.monotonic() + 5
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_an_interrupt_kills_the_command_and_leaves_the_agent_usable(agent: LocalAgent, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(agent, "sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 300", timeout_s=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert run(agent, "echo", "on").text == "on\n"
    deadline_s = time.monotonic() + 5
    while _runs((tmp_path / "pid").read_text().strip()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not _runs((tmp_path / "pid").read_text().strip())


def test_output_before_a_long_silence_does_not_end_the_command(agent: LocalAgent) -> None:
    assert run(agent, "sh", "-c", "echo one; sleep 0.3; echo two").text == "one\ntwo\n"


def test_output_beyond_what_is_kept_is_read_and_dropped(agent: LocalAgent) -> None:
    assert run(agent, "head", "-c", str(20 << 20), "/dev/zero", timeout_s=60).stdout == bytes(16 << 20)


def test_closed_streams_do_not_end_the_command(agent: LocalAgent) -> None:
    result = run(agent, "sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 5")
    assert (result.status, result.stdout) == (5, b"")


def test_a_process_left_in_the_background_does_not_keep_the_command(agent: LocalAgent) -> None:
    result = run(agent, "sh", "-c", "sleep 300 & echo $!", timeout_s=60)
    os.kill(int(result.text), signal.SIGKILL)
    assert result.elapsed_s < 30


def test_commands_from_several_threads_do_not_mix(agent: LocalAgent) -> None:
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        text = bytes([65 + number]) * 100_000
        results[number] = run(agent, "sh", "-c", "sleep 0.1; cat", stdin=text, timeout_s=60).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: bytes([65 + number]) * 100_000 for number in range(6)}


def test_nothing_piles_up_in_the_agent(agent: LocalAgent) -> None:
    run(agent, "true")
    before = agent.open_files()
    for _ in range(50):
        run(agent, "sh", "-c", "cat; (sleep 0 &) ; exit 1", stdin=b"x")
    run(agent, "true")
    assert agent.open_files() <= before
    assert len(agent.port.ended) == len(agent.port.waited_for) == 0


def test_an_agent_that_is_gone_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with local_agent(tmp_path) as gone:
        run(gone, "true")
        gone.process.kill()
        with pytest.raises(GuestError, match="The agent is gone"):
            run(gone, "true")


def test_an_agent_that_hangs_is_an_error_within_the_time_limit(tmp_path: Path) -> None:
    with local_agent(tmp_path) as hung:
        run(hung, "true")
        hung.process.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        with pytest.raises(GuestError, match="did not answer within its time limit"):
            run(hung, "true", timeout_s=0.5)
        assert time.monotonic() - started_s < 10


def test_an_interrupted_answer_is_awaited_before_the_next_list(tmp_path: Path) -> None:
    with local_agent(tmp_path) as slow:
        run(slow, "true")
        slow.process.send_signal(signal.SIGSTOP)
        with pytest.raises(GuestError):
            run(slow, "echo", "first", timeout_s=0.2)
        slow.process.send_signal(signal.SIGCONT)
        assert run(slow, "echo", "second").text == "second\n"
