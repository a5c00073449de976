from agent.core.figures import RepairStatistics
from agent.core.recovery.repair import Ending, Goal, Repair, Trouble


def ended(ending, seconds, acts=1):
    over = {"ending": ending, "ended_wall": 100.0 + seconds}
    return Repair(Trouble.CONNECTION, "zombie", Goal.HEAL, 100.0, acts=acts, **over)


def test_statistics_count_what_ended_and_how():
    statistics = RepairStatistics()
    assert (statistics.success_rate, statistics.mean_time_to_repair) == (None, None)
    for ending, seconds in (
        (Ending.RECOVERED, 10),
        (Ending.CLEANED, 30),
        (Ending.RECOVERED, 20),
        (Ending.GAVE_UP, 999),
        (Ending.NOT_WANTED, 999),
    ):
        statistics.note(ended(ending, seconds))
    statistics.note(ended(Ending.NO_STEP, 5, acts=0))
    assert (statistics.repaired, statistics.cleaned, statistics.failed) == (2, 1, 1)
    assert statistics.mean_time_to_repair == 20
    assert statistics.success_rate == 0.75
