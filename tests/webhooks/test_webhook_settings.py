"""[[webhook]] of agent.toml: read, checked, shown."""

from pathlib import Path

import pytest

from agent.config.config import render_config, without_secrets
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.webhooks.settings import WebhookDeclaration, secret_of, webhooks_of


@pytest.fixture
def load(tmp_path: Path):
    def read(text: str):
        file = tmp_path / "agent.toml"
        file.write_text(text)
        return load_config(file, {})

    return read


HOOK = "[[webhook]]\nname = 'ops'\nurl = 'https://x.example/in?token=T-1'\n"


def test_webhooks_are_declared_and_read_back(load):
    config = load(HOOK + "kinds = ['status', 'trouble*']\nprivate = true\nlongest_age = 1\n")
    (one,) = webhooks_of(config)
    assert (one.kinds, one.instances, one.private) == (("status", "trouble*"), ("*",), True)
    assert load(render_config(config)) == config
    assert load(render_config(config, only_changed=False)) == config
    assert "T-1" not in repr(config)
    shown = render_config(without_secrets(config))
    assert 'url = "https://x.example/***"' in shown, "of many services the path is the key"
    assert "T-1" not in shown


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        pytest.param("[[webhook]]\nname = 'a'", 1, r"0..url .*every .* needs it", id="no url"),
        pytest.param(HOOK + "name2 = 1", 4, "no such key; did you mean name", id="unknown key"),
        pytest.param(HOOK + "tries = 0", 4, "at least 1", id="too few"),
        pytest.param(HOOK + "kinds = []", 4, "an empty list sends nothing", id="no kinds"),
        pytest.param(HOOK + "secret_file = 'x'", 4, "an absolute path", id="relative"),
        pytest.param(HOOK.replace("https", "ftp"), 3, "must be http", id="ftp"),
        pytest.param(HOOK.replace("x.ex", "u:p@x.ex"), 3, "without user", id="password"),
        pytest.param(HOOK + HOOK, 5, "ops is declared twice", id="twice"),
        pytest.param(HOOK.replace("'ops'", "'Ops'"), 2, "1 to 48 of a-z", id="name"),
    ],
)
def test_f62_a_webhook_that_cannot_be_is_named_with_its_line(load, text, line, cause):
    with pytest.raises(ConfigError, match=cause) as caught:
        load(text)
    assert f"line {line}" in str(caught.value)
    assert "T-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sixteen or more of it", b"sixteen or more of it"),
        ("whsec_AAECAwQFBgcICQoLDA0ODw==", bytes(range(16))),
        ("whsec_AAECAwQFBgc=", None),
        ("whsec_no base64 at all, but long", None),
        ("too few", None),
    ],
)
def test_a_secret_is_its_text_or_a_key_in_base64(tmp_path, text, key):
    file = tmp_path / "secret"
    file.write_text(text + "\n")
    file.chmod(0o600)
    declared = WebhookDeclaration("ops", secret_file=str(file))
    if key is not None:
        assert secret_of(declared) == key
        return
    with pytest.raises(ConfigError, match=r"no base64|shorter than 16") as caught:
        secret_of(declared)
    assert text not in str(caught.value)
