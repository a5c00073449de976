"""Settings: what a file and an environment may say, and how a mistake is named."""

import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import config as tables
from agent.config.config import Config, Declaration, render_config, with_secrets, without_secrets
from agent.config.load import NAMED, changes_that_need_restart, find_lines, load_config
from agent.core.memory import memory_budget
from agent.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "agent.toml.example"


def sections(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in tables.sections()}


EVO = (
    "[[backend]]\nname = 'evo'\nengine = 'evolution'\nurl = 'http://e.example:8080'\nkey = 'K-1'\n"
)
TICKET = (
    "[[backend]]\nname = 'tick'\nengine = 'whaticket'\nurl = 'https://t.example/api'\n"
    "user = 'a@b.example'\npassword = 'P-1'\n"
)


@pytest.fixture
def load(tmp_path):
    def load(text: str, env: dict[str, str] | None = None, **overrides: str) -> Config:
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return load_config(path, env or {}, overrides=overrides)

    return load


def test_a_file_changes_what_it_names_and_nothing_else(load):
    config = load("[reconnect]\nbase = 5\n[memory]\nmeasure = false\n")
    assert isinstance(config.reconnect.base, float)
    changed = replace(Config().reconnect, base=5.0), replace(Config().memory, measure=False)
    assert config == replace(Config(), reconnect=changed[0], memory=changed[1])


@pytest.mark.parametrize(
    ("text", "key", "line", "cause"),
    [
        ("[agent]\nlisten = 'x'", "agent.listen", 2, "it is a key of [api]"),
        ("[stop]\n#\nsave = '20'", "stop.save", 3, "a number"),
        ("[memory]\nmeasure = 1", "memory.measure", 2, "true or false"),
        ("[api]\nallowed_hosts = [1]", "api.allowed_hosts", 2, "a list"),
        ("[stop]\nsave = nan", "stop.save", 2, "at most 1e+09, not nan"),
        *((f"[{path.replace('.', ']' + chr(10))} = '~/x'", path, 2, "write the whole path")
          for path in ("agent.state_path", "log.folder")),
        ("agent = {log_level = 3}", "agent.log_level", 1, "a text"),
        ("[agent]\nstate_path = ''", "agent.state_path", 2, "it must be a path, not ''"),
        ("[[agent]]\n", "agent", 1, "it must be a table"),
        *((f"[[instance]]\nid='a'\nengine='x'\n[[instance]]\nid='{bad}'\nengine='x'",
           "instance[1].id", 5, "1 to 48 of a-z") for bad in ("B", "all")),
        ("[[instance]]\nid='a'\nengine='e'\n[[instance]]\nengine='e'\nid='a'",
         "instance[1].id", 6, "declared twice"),
        ("[stop]\nsave = 60", "stop.save", 2, "worker.stop_timeout"),
        ("[api]\nlisten = '0.0.0.0:80'\ntrust_loopback = true",
         "api.trust_loopback", 3, "only for a loopback"),
        ("[log]\nrepairs_name='../x'", "log.repairs_name", 2, "plain"),
        ("[api]\nlisten = '::1:80'", "api.listen", 2, "[ ]"),
        ("[api]\nlisten = 'foo'", "api.listen", 2, "it must be HOST:PORT, as 127.0.0.1:8470,"),
        ("[agent]\nsession_storage_path = '/etc/passwd/x'", "agent.session_storage_path", 2,
         "/etc/passwd is a file, not a folder"),
        ("[agent]\nstate_path='/s/t'\nsession_storage_path='/x'\ncache_path='/s'",
         "agent.cache_path", 4, "separate folders"),
        ("[memory]\ninstance = 1_000_000_000", "memory.instance", 2, "worker.memory_max"),
        *((f"[start]\n{key} = {'9' * 400}", f"start.{key}", 2, "number")
          for key in ("stagger", "parallel")),
        (EVO + "tiemout = 3", "backend[0].tiemout", 6, "mean timeout"),
        (EVO.replace("'evolution'", "'evolutoin'"), "backend[0].engine", 3, "mean evolution?"),
        ("[[instance]]\nid='a'\nengine='bailys'", "instance[0].engine", 3, "mean baileys?"),
        (EVO.replace("http://", "http://u:sesame@"), "backend[0].url", 4, "logs would show"),
        (EVO.replace(":8080", ":8080/?apikey=1"), "backend[0].url", 4, "without ?"),
        (EVO + "key_file = '/k'", "backend[0].key_file", 6, "both"),
        (EVO + "auth_folder = '/a/{id}'", "backend[0].auth_folder", 6, "only for engine whaticket"),
        (EVO + "ca_file = '/c'\ntls_verify = false",
         "backend[0].tls_verify", 7, "makes ca_file useless"),
        (TICKET.replace("password", "key = 'x'\n#"), "backend[0].user", 5, "belong together"),
        (TICKET + "auth_folder = '/auth'", "backend[0].auth_folder", 7, "{id}"),
        (TICKET + "auth_folder = '/a/../{id}'", "backend[0].auth_folder", 7, "in its last part"),
        (TICKET + "redis_pattern = 'sessions:{id}*'",
         "backend[0].redis_pattern", 7, "a separator between"),
        (TICKET + "auth_folder = '/a/{id}/b'", "backend[0].auth_folder", 7, "last part"),
        (TICKET + "logs = ['journal:wa']", "backend[0].logs", 7, "it must be file:/PATH"),
        (TICKET + "logs = ['command:a', 'command:b']", "backend[0].logs", 7, "only one command"),
        (TICKET + "log_session = 'x'", "backend[0].log_session", 7, "one group"),
        (TICKET + "start_route = 'POST /whatsapp'", "backend[0].start_route", 7, "{id}"),
        (EVO + "[[instance]]\nid='a'\nengine='evolution'\nsettings={backend='evo'}\n"
         "[[instance]]\nid='b'\nengine='evolution'\nsettings={backend='evo', remote='a'}",
         "instance[1].settings.remote", 13, "already"),
        ("[agent]\nsession_storage_path = '/var/lib/wa-agent/backends'",
         "agent.session_storage_path", 2, "separate folders"),
        *((EVO + f"[[instance]]\nid='a'\n{rest}", f"instance[0].{key}", 8 + rest.count("\n"), cause)
          for rest, key, cause in (
              ("engine='whaticket'\nsettings={backend='evo'}", "settings.backend", ": none"),
              ("engine='evolution'\nsettings={backend='e'}", "settings.backend", "declared: evo"),
              ("engine='sandbox'\nsettings={backend='evo'}", "settings.backend", "unknown"),
              ("engine='x'\nenabeld=true", "enabeld", ""),
              ("engine='x'\nenabled=1", "enabled", "it must be true or false"),
              ("engine='x'\nsettings={at=[2026-01-01]}", "settings", ""),
              ("engine='x'\nsettings={n=99999999999999999999}", "settings", ""),
          )),
        (EVO.replace("'K-1'", "12345678"), "backend[0].key", 5, "a text"),
        (TICKET.replace("'P-1'", "12345678"), "backend[0].password", 6, "a text"),
        (TICKET + "redis_url = 12345678", "backend[0].redis_url", 7, "a text"),
        (TICKET + "redis_url = 'http://x:12345678@r'", "backend[0].redis_url", 7, "redis://"),
        (EVO.replace("K-1", "12345678 x"), "backend[0].key", 5, ""),
        ('# three quotes: """\n[ stop ]\nsave = 0\n', "stop.save", 3, "at least 0.1"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_key_file_and_line(load, tmp_path, *, text, key, line, cause):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_status == 78
    assert caught.value.field == key
    message = str(caught.value)
    assert message.startswith("cannot use ")
    assert key in message
    assert f"{tmp_path / 'agent.toml'}, line {line}:" in message
    assert cause in message
    assert not any(secret in message for secret in ("sesame", "12345678"))


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        pytest.param(b"[api\nlisten='x'", "no TOML that can be read: .*line 1", id="syntax"),
        pytest.param(b"[api]\nlisten=x", "a text without quotes .*line 2", id="no quotes"),
        pytest.param(b"[api]\n\xff\n", "not UTF-8 at line 2", id="no text"),
        pytest.param(b"x = " + b"[" * 20_000, "recursion", id="nested without end"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, raw, cause):
    path = tmp_path / "agent.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=cause) as caught:
        load_config(path, {})
    assert str(path) in str(caught.value)


def test_a_file_that_was_named_must_exist(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="it is no plain file"):
        load_config(tmp_path / "pipe.toml", {})
    with pytest.raises(ConfigError, match=r"cannot read .*gone.toml: No such file"):
        load_config(tmp_path / "gone.toml", {})


def test_a_relative_path_is_relative_to_the_file(load, tmp_path):
    config = load("[agent]\nstate_path='state'\nsession_storage_path='files'")
    assert config.agent.state_path == tmp_path / "state"
    assert config.session_root == tmp_path / "files"
    assert config.cache_root == tmp_path / "state" / "cache"
    assert config.api_socket == tmp_path / "state" / "api.sock"


def test_instances_are_declared(load):
    config = load(
        "[[instance]]\nid='sales'\nengine='sandbox'\nsettings={scan='manual', scan_after=2.5}\n"
        "[[instance]]\nid='b'\nengine='web'\nenabled=false\n"
    )
    assert config.instance == (
        Declaration("sales", "sandbox", True, {"scan": "manual", "scan_after": 2.5}),
        Declaration("b", "web", enabled=False),
    )


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("CACHE_PATH", "/x/c", "agent.cache_path", "/x/c"),
        ("LOG_LEVEL", "WARNING", "agent.log_level", "warn"),
        ("WHATSAPP_RECONNECTION_BASE_DELAY", "2500", "reconnect.base", 2.5),
        ("WHATSAPP_MEMORY_THRESHOLD", "70", "memory.warn", 0.7),
        ("WHATSAPP_MEMORY_THRESHOLD", "0.7", "memory.warn", 0.7),
        ("WHATSAPP_MEMORY_THRESHOLD", "97", "memory.critical", 0.97),
        ("WHATSAPP_ERROR_RATE_THRESHOLD", "5", "health.error_rate", 0.05),
        ("WA_AGENT_MEMORY__MEASURE", "off", "memory.measure", False),
        ("WA_AGENT_API__ALLOWED_HOSTS", "a.b, c.d", "api.allowed_hosts", ("a.b", "c.d")),
        ],
)  # fmt: skip
def test_the_environment_overrides_the_file(load, name, text, key, value):
    file = "[reconnect]\nbase = 9\n[stop]\nsave = 9\n[agent]\nlog_level='error'\n"
    section, _, attribute = key.partition(".")
    assert getattr(getattr(load(file, {name: text}), section), attribute) == value


def test_every_name_for_the_environment_stands_for_a_key():
    for key, _ in NAMED.values():
        section, _, name = key.partition(".")
        assert hasattr(getattr(Config(), section), name)


def test_faults_are_told_all_at_once_those_of_pairs_after_those_of_single_values(load):
    with pytest.raises(ConfigError, match=r"stop\.sav .*; .* memory\.measure .*; .* timeout\?$"):
        load("[stop]\nsav = 1\n[memory]\nmeasure = 1\n" + EVO + "tiemout = 3")
    with pytest.raises(ConfigError, match=r"\(9\) is more .* memory\.warn \(0\.97\) is more than"):
        both = "[memory]\ncritical = 0.95\n[reconnect]\nmax = 5\nbase = 9\n"
        load(both, {"WHATSAPP_MEMORY_THRESHOLD": "0.97"})


def test_a_keys_own_name_wins_over_its_alias(load):
    env = {"WHATSAPP_RECONNECTION_MAX_RETRIES": "7", "WA_AGENT_RECONNECT__ATTEMPTS": "8"}
    assert load("", env).reconnect.attempts == 8


def test_the_command_line_wins_over_all(load):
    env = {"WA_AGENT_STOP__SAVE": "8"}
    assert load("[stop]\nsave=7", env, **{"stop.save": "9"}).stop.save == 9.0
    with pytest.raises(ConfigError, match=r"state_path in .* \(--state; else .*\): /etc/passwd is"):
        load("", **{"agent.state_path": "/etc/passwd/x"})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"WA_AGENT_STOP__SAV": "1"}, ["WA_AGENT_STOP__SAV", "stop.sav"]),
        ({"WA_AGENT_SAVE": "1"}, ["WA_AGENT_SAVE"]),
        ({"WA_AGENT_STOP__SAVE": "soon"}, ["WA_AGENT_STOP__SAVE", "a number", "'soon'"]),
        ({"WHATSAPP_RECONNECTION_BASE_DELAY": "2"}, ["milliseconds", "at least 0.1"]),
        ({"LOG_LEVEL": "loud"}, ["LOG_LEVEL", "debug, info, warn, error"]),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(env, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, env)
    for word in words:
        assert word in str(caught.value)


def test_backends_are_read_with_the_flat_keys_of_their_worker(load):
    evo, tick = load(EVO + "adopt = ['shop-*']\n" + TICKET).backend
    assert (evo.name, evo.adopt, evo.timeout, evo.parallel) == ("evo", ("shop-*",), 10.0, 50)
    assert (tick.own.preset, tick.own.disconnect_keeps_pairing) == ("spec", None)


def test_secrets_come_from_their_files(load, tmp_path, caplog):
    key, password = tmp_path / "key", tmp_path / "password"
    key.write_text("K-2\n")
    password.write_text("blank and ü\n")
    key.chmod(0o600)
    password.chmod(0o644)
    (evo,) = load(EVO.replace("key = 'K-1'", f"key_file = '{key}'")).backend
    assert with_secrets(evo).key == "K-2"
    assert not caplog.records
    (tick,) = load(TICKET.replace("password = 'P-1'", f"password_file = '{password}'")).backend
    assert with_secrets(tick).own.password == "blank and ü"
    assert f"{password} is open to every user" in caplog.text


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"sesame\nsesame\n", "one line"),
        (b"x" * 20_000, "longer than"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_and_not_shown(tmp_path, raw, cause):
    path = tmp_path / "key"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match=cause) as caught:
        with_secrets(tables.BackendDeclaration("evo", "evolution", "http://e", key_file=str(path)))
    assert str(path) in str(caught.value)
    assert "backend evo" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_listing_shows_no_secret(load):
    config = load(EVO + TICKET + "redis_url = 'redis://u:R-1@r:1/0?password=R-1'\n")
    shown = without_secrets(config)
    assert (shown.backend[0].key, shown.backend[1].own.password) == ("***", "***")
    assert shown.backend[1].own.redis_url == "redis://***@r:1/0"
    for text in (render_config(shown), *map(repr, (shown, config, with_secrets(shown.backend[0])))):
        assert not any(secret in text for secret in ("K-1", "P-1", "R-1"))
    assert without_secrets(Config()) == Config()


def test_the_environment_overrides_the_first_backend_that_can_take_it(load):
    env = {"BACKEND_URL": "http://other:1", "REDIS_URL": "redis://r:1"}
    evo, tick = load(EVO + TICKET, env).backend
    assert (evo.url, tick.url) == ("http://other:1", "https://t.example/api")
    assert tick.own.redis_url == "redis://r:1"
    assert load(EVO.replace("url", "#"), env | {"REDIS_URL": ""}).backend[0].url == "http://other:1"


@pytest.mark.parametrize(
    ("text", "env", "words"),
    [
        ("", {"REDIS_URL": "redis://:S-1@x"}, ["REDIS_URL", "[[backend]] of engine whaticket"]),
        (EVO, {"REDIS_URL": "no address"}, ["REDIS_URL", "[[backend]] of engine whaticket"]),
        (EVO, {"BACKEND_URL": "http://x"}, []),
    ],
)
def test_an_unused_address_variable_is_a_warning(load, text, env, words):
    told = load(text, env).warnings
    assert len(told) == bool(words)
    for word in words:
        assert word in told[0]
    assert "S-1" not in "".join(told)


def test_variables_of_the_command_line_and_of_other_programs_are_no_settings():
    assert load_config(None, {"WA_AGENT_KEY": "x", "WA_AGENTX": "1", "REDIS_HOST": "x"}) == Config()


@pytest.mark.parametrize(
    ("text", "env", "share"),
    [
        ("[memory]\ntotal = 2147483648\n", {}, 0.0),
        ("[memory]\ntotal = 2147483648\nmachine_share = 0.5\n", {}, 0.5),
        ("[memory]\ntotal = 5\n", {"WA_AGENT_MEMORY__MACHINE_SHARE": "0.3"}, 0.3),
    ],
)
def test_a_total_of_memory_that_is_set_alone_is_the_limit(load, text, env, share):
    config = load(text, env)
    assert config.memory.machine_share == share
    assert (memory_budget(64 << 30, config.memory) == config.memory.total) is (share == 0.0)


def test_the_example_file_is_the_dataclasses_and_the_twenty_that_matter_come_first():
    text = EXAMPLE.read_text()
    assert text == render_config(Config())
    assert load_config(EXAMPLE, {}) == Config()
    above = text.partition("# ----")[0]
    assert len(tables.FIRST) == len(re.findall(r"^# (?!false)\w+ = ", above, re.M)) == 20


@pytest.mark.parametrize(
    "text",
    [
        "[agent]\nlog_level='debug'\n[api]\nallowed_hosts=['x.example']\n[memory]\nmeasure=false\n"
        "[[instance]]\nid='a'\nengine='sandbox'\nsettings={account=\"q\\n#\"}\n",
        TICKET + "logs = ['file:/l', 'file:/l/*.log', 'command:docker logs -f -n 0 x']",
        TICKET + "redis_url = 'redis://:geheim@r:6379/2'\nredis_pattern = 's:{id}:*'",
        TICKET + "disconnect_keeps_pairing = false\npreset = 'ticketz'\nrestart_route = 'none'",
    ],
)
def test_a_rendered_file_reads_back_as_the_same_config(load, text):
    config = load(text)
    assert load(render_config(config)) == config
    assert load(render_config(config, only_changed=False)) == config


def test_only_changed_values_stand_live():
    live = tomllib.loads(render_config(replace(Config(), stop=replace(Config().stop, save=12.0))))
    assert live["messages"].pop("pace") == {}
    assert {name: table for name, table in live.items() if table} == {"stop": {"save": 12.0}}


def test_a_reload_tells_what_only_a_restart_changes(load):
    new = load(
        "[agent]\nlog_level='debug'\nstate_path='/elsewhere'\n[api]\nlisten='127.0.0.1:1'\n"
        "[reconnect]\nattempts = 3\n[[instance]]\nid='a'\nengine='sandbox'\n"
    )
    assert changes_that_need_restart(Config(), new) == ["agent.state_path", "api.listen"]
    assert changes_that_need_restart(new, new) == []
    assert changes_that_need_restart(Config(), load(EVO)) == [], "a new one is taken on at once"
    assert changes_that_need_restart(load(EVO), Config()) == ["[[backend]] evo"]
    slower = load(EVO + "timeout = 3.0\nkey_file = ''\n")
    assert changes_that_need_restart(load(EVO), slower) == ["[[backend]] evo"]


def test_a_mark_that_an_editor_put_in_front_is_no_mistake(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_bytes(b"\xef\xbb\xbf[stop]\nsave = 7\n")
    assert load_config(file, {}).stop.save == 7.0


def test_lines_are_found():
    text = 'a = 1\n[api]\n# listen = 1\n"listen" = 2\n[x.y]\nz.w = 3\n[[b]]\n[[ b ]]\n[b.d]\ne=1'
    lines = find_lines(text)
    assert [lines[key] for key in ("api.listen", "x.y.z.w", "b[1]", "b[1].d.e")] == [4, 6, 8, 10]
    assert find_lines(" " * (1 << 20) + "x") == {}, "and no blanks are tried in every way"


@given(st.binary(max_size=200) | st.text("[]{}=.'\"#\n ab1,api.listen").map(str.encode))
def test_any_bytes_give_a_config_or_a_named_error(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("config") / "agent.toml"
    path.write_bytes(raw)
    try:
        load_config(path, {})
    except ConfigError as error:
        assert str(path) in str(error)
