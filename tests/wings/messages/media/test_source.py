"""Files on their way through the agent: few at a time, asked for until they are there."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.deliver.media import ALL_READERS, READERS, MediaFile, MediaReaders
from agent.errors import EngineError, NotFound, NotYet, Refused, StoreError, TryLater, WaError

SHOP, OTHER = InstanceId("shop"), InstanceId("other")


class Source:
    """What its worker answers, one after the other; the last one again and again."""

    ending = False

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self.answers = list(answers)

    async def call(self, *_asked: Any) -> Mapping[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def readers(*answers: Mapping[str, Any] | Exception) -> MediaReaders:
    return MediaReaders(Source(*answers))  # type: ignore[arg-type]


async def test_few_files_are_read_at_a_time_of_a_session_and_of_all() -> None:
    media = readers({})
    async with AsyncExitStack() as turns:
        for _ in range(READERS):
            await turns.enter_async_context(media.turn(SHOP))
        with pytest.raises(TryLater, match="too many"):
            await turns.enter_async_context(media.turn(SHOP))
        for number in range(ALL_READERS - READERS):
            await turns.enter_async_context(media.turn(InstanceId(f"s{number}")))
        with pytest.raises(TryLater, match="too many"):
            await turns.enter_async_context(media.turn(OTHER))
    async with media.turn(SHOP), media.turn(OTHER):
        pass


async def test_a_file_is_waited_for_and_the_wait_has_an_end() -> None:
    loading = {"state": "loading"}
    ready = {"state": "ready", "name": "n", "size": 3, "sha256": "0" * 64}
    file = await readers(loading, loading, ready).open(SHOP, "m", "", 60)
    assert (file.name, file.size) == ("n", 3)
    with pytest.raises(NotYet) as error:
        await readers(loading).open(SHOP, "m", "", 0)
    assert error.value.code == "media_loading"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *(("message_not_found", NotFound), ("no_media", NotFound), ("media_gone", NotFound)),
        *(("media_too_large", Refused), ("not_connected", Refused), ("timeout", TryLater)),
        *(("media_not_kept", StoreError), ("media_damaged", EngineError)),
    ],
)
async def test_each_refusal_of_the_worker_is_an_answer_of_its_kind(
    code: str, kind: type[WaError]
) -> None:
    with pytest.raises(kind) as error:
        await readers(EngineError("no", code=code)).open(SHOP, "m", "", 0)
    assert error.value.code == code


@pytest.mark.parametrize("data", ["", "AAAAAAAA", None])
async def test_a_file_that_changes_on_its_way_ends_the_answer(data: str | None) -> None:
    media = readers({"data": data})
    with pytest.raises(TryLater):
        async for _ in media.parts(MediaFile(SHOP, "n", 5, None, None, "")):
            pass
