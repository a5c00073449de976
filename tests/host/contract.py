"""Both hosts do this in the same order and the same words, with the stand-in as their worker."""

from collections.abc import Callable

import pytest

from agent.core.model import InstanceId, UnitState
from agent.errors import HostError
from agent.host.life import Host
from tests.conftest import Eventually

Kill = Callable[[int], object]
GOOD, DEAF, HANG = InstanceId("good"), InstanceId("deaf"), InstanceId("hang")
FAILING = InstanceId("exit7")


class HostContract:
    """A room has the fixtures `host`, `watching` (a host that is soon out of patience), `woken`
    (whom the hosts woke) and `kill` (by SIGKILL)."""

    BURST = 5

    async def test_a_worker_starts_says_ready_and_stops(self, host: Host) -> None:
        await host.start(GOOD)
        status = await host.status(GOOD)
        assert (status.state, status.status_text) == (UnitState.ACTIVE, "I am good")
        assert (len(status.run), status.restarts, status.result) == (32, 0, "success")
        assert (await host.list())[GOOD] == status
        await host.start(GOOD)
        assert (await host.status(GOOD)).run == status.run
        await host.stop(GOOD)
        assert (await host.status(GOOD)).state is UnitState.INACTIVE
        await host.stop(GOOD)

    async def test_f02_a_killed_worker_comes_back_as_another_run_and_wakes_us(
        self, host: Host, woken: list[str], kill: Kill, eventually: Eventually
    ) -> None:
        await host.start(GOOD)
        before = await host.status(GOOD)
        woken.clear()
        kill(before.main_pid)

        async def back() -> tuple[UnitState, int, bool]:
            status = await host.status(GOOD)
            return status.state, status.restarts, status.run != before.run

        await eventually(back, (UnitState.ACTIVE, 1, True))
        after = await host.status(GOOD)
        assert (after.result, after.exit_status) == ("signal", 9)
        assert GOOD in woken

    async def test_f05_a_silent_worker_is_aborted_and_comes_back(
        self, watching: Host, eventually: Eventually
    ) -> None:
        await watching.start(HANG)
        before = await watching.status(HANG)

        async def back() -> bool:
            status = await watching.status(HANG)
            return status.restarts >= 1 and status.run != before.run and status.result == "watchdog"

        await eventually(back)

    async def test_f09_a_deaf_worker_is_killed_after_its_time(self, watching: Host) -> None:
        await watching.start(DEAF)
        await watching.stop(DEAF)
        status = await watching.status(DEAF)
        assert (status.state, status.result) == (UnitState.FAILED, "timeout")

    async def test_f12_a_crash_loop_ends_as_start_limit_hit_until_reset(
        self, host: Host, eventually: Eventually
    ) -> None:
        # systemd may have begun the next try, and forgotten how this one ended, before it is asked.
        with pytest.raises(HostError, match=r"cannot start .*exit7"):
            await host.start(FAILING)

        async def given_up() -> tuple[UnitState, int]:
            status = await host.status(FAILING)
            return status.state, status.restarts

        await eventually(given_up, (UnitState.FAILED, self.BURST))
        assert (await host.status(FAILING)).exit_status == 7
        with pytest.raises(HostError):
            await host.start(FAILING)
        await host.reset_failed(FAILING)
        assert (await host.status(FAILING)).state is UnitState.INACTIVE
        with pytest.raises(HostError):
            await host.start(FAILING)

    @pytest.mark.parametrize("exit", [77, 78])
    async def test_f13_a_wrong_setting_or_an_ended_lease_is_not_restarted(
        self, host: Host, exit: int
    ) -> None:
        with pytest.raises(HostError, match=str(exit)):
            await host.start(wrong := InstanceId(f"exit{exit}"))
        status = await host.status(wrong)
        assert (status.state, status.exit_status, status.restarts) == (UnitState.FAILED, exit, 0)
        await host.reset_failed(wrong)
        await host.reset_failed(InstanceId("never-loaded"))
