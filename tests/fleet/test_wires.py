"""The networks of the fleet's tests: what is cut is lost, and nothing else is."""

import subprocess
import sys

from tests.fleet.wires import Wires, wires

LISTEN = "import socket; s = socket.socket(2, 2); s.bind(('', 9999)); s.settimeout({within})"
HEAR = "print('bound', flush=True)\nwhile 1: print(s.recvfrom(99)[1][0], flush=True)"
SAY = "import socket; socket.socket(2, 2).sendto(b'hello', ('{to}', 9999))"


def python(net: Wires, host: str, text: str) -> "subprocess.Popen[str]":
    command = [*net.inside(host), sys.executable, "-c", text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_networks_are_laid_again_while_a_program_is_left_in_one_of_before() -> None:
    with wires(["a"]) as net:
        left = python(net, "a", "print('here', flush=True); import time; time.sleep(60)")
        assert left.stdout is not None
        assert left.stdout.readline() == "here\n"
    try:
        with wires(["a"]) as net:
            again = python(net, "a", "print('there')")
            assert again.communicate(timeout=20)[0] == "there\n"
    finally:
        left.kill()
        left.communicate()


def test_a_wire_cut_in_one_direction_still_carries_the_other() -> None:
    with wires(["a", "b"]) as net:
        ears = {host: python(net, host, f"{LISTEN.format(within=20)}\n{HEAR}") for host in "ab"}

        def heard(host: str) -> str:
            out = ears[host].stdout
            assert out is not None
            return out.readline().strip()

        def say(sender: str, receiver: str) -> None:
            python(net, sender, SAY.format(to=net.address(receiver))).communicate(timeout=20)

        try:
            assert [heard(host) for host in "ab"] == ["bound", "bound"]
            net.cut("a", "b")
            say("a", "b")
            say("b", "a")
            assert heard("a") == net.address("b")
            net.mend()
            say("b", "b")  # the lost one would have come before this one
            assert heard("b") == net.address("b")
            say("a", "b")
            assert heard("b") == net.address("a")
        finally:
            for ear in ears.values():
                ear.kill()
                ear.communicate()
