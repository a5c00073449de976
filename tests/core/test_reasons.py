import pytest

from agent.core.reasons import REASONS
from agent.engines.whatsapp import WEB_WORDS, WHATSAPP_CODES, code_reason, web_reason


def test_every_word_of_every_engine_leads_into_the_table():
    assert {*WHATSAPP_CODES.values(), *WEB_WORDS.values()} <= set(REASONS)


@pytest.mark.parametrize(
    ("got", "code"),
    [
        pytest.param(code_reason(405), "client_outdated", id="405"),
        pytest.param(code_reason(408, "QR refs attempts ended"), "qr_idle", id="408 of a QR"),
        pytest.param(code_reason(None), "connection_lost", id="plain Error"),
        pytest.param(code_reason(599), "unknown", id="an unknown number"),
        pytest.param(code_reason(414), "unknown", id="too large, or a token expired: no logout"),
        pytest.param(
            code_reason(428, "QR code limit reached, please login again"), "qr_idle", id="evo"
        ),
        pytest.param(web_reason("primary_identity_key_change"), "logout", id="logout reason"),
        pytest.param(web_reason("lid_migration_failed"), "logout", id="logout family"),
        pytest.param(web_reason("account_locked"), "banned", id="locked is no logout"),
    ],
)
def test_engines_words(got, code):
    assert got == code
