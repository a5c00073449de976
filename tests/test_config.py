"""Settings: what a file and an environment may say, and how a mistake is named."""

import tomllib
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import (
    Config,
    Declaration,
    changes_that_need_restart,
    load_config,
    render_config,
    split_address,
)
from agent.config.environment import NAMED
from agent.config.lines import find_lines
from agent.config.setting import settings_of
from agent.core.alerts import AlertLimits
from agent.core.crypto import CryptoPolicy
from agent.core.incident import IncidentPolicy
from agent.core.memory import MemoryPolicy
from agent.core.phases import PhaseDeadlines
from agent.core.reconnect import BreakerPolicy, ReconnectPolicy
from agent.core.repair import RecoveryPolicy
from agent.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "agent.toml.example"


def sections(config: Config) -> dict[str, object]:
    return {one.name: getattr(config, one.name) for one in fields(Config) if one.name != "instance"}


@pytest.fixture
def load(tmp_path):
    def load(text: str, env: dict[str, str] | None = None, **overrides: str) -> Config:
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return load_config(path, env or {}, overrides=overrides)

    return load


def test_without_a_file_every_default_holds():
    assert load_config(None, {}) == Config()


def test_a_file_changes_what_it_names_and_nothing_else(load):
    config = load("[reconnect]\nbase = 5\n[worker]\nwarm = false\n")
    assert config.reconnect.base == 5.0
    assert isinstance(config.reconnect.base, float)
    assert config == replace(
        Config(),
        reconnect=replace(Config().reconnect, base=5.0),
        worker=replace(Config().worker, warm=False),
    )


def test_the_defaults_are_those_of_the_core():
    config = Config()
    assert config.phase_deadlines == PhaseDeadlines()
    assert config.reconnect_policy == ReconnectPolicy()
    assert config.breaker_policy == BreakerPolicy()
    assert config.recovery_policy == RecoveryPolicy()
    assert config.memory_policy == MemoryPolicy()
    assert config.crypto_policy == CryptoPolicy()
    assert config.incident_policy == IncidentPolicy()
    assert config.alert_limits == AlertLimits()


def test_what_the_core_gets_is_what_the_file_says(load):
    config = load(
        "phases.login = 7\n[reconnect]\nfactor = 2\nstable = 9\n"
        "breaker_failures = 4\nbreaker_pause = 8\n"
    )
    assert config.phase_deadlines == PhaseDeadlines(login=7.0)
    breaker = BreakerPolicy(failures=4, pause=8.0)
    assert config.reconnect_policy == ReconnectPolicy(factor=2.0, stable=9.0, breaker=breaker)


@pytest.mark.parametrize(
    ("text", "key", "line", "cause"),
    [
        pytest.param("[api]\nlistn = 'x'", "api.listn", 2, "did you mean listen?", id="a typo"),
        pytest.param("\n\n[apo]\n", "apo", 3, "did you mean api?", id="an unknown table"),
        pytest.param("retries = 3", "retries", 1, "no such table", id="a key outside of tables"),
        pytest.param("[stop]\n#\nsave = '20'", "stop.save", 3, "a number", id="text for number"),
        pytest.param("[stop]\nsave = true", "stop.save", 2, "a number", id="bool is no number"),
        pytest.param("[worker]\nburst = 1.5", "worker.burst", 2, "a whole", id="float for int"),
        pytest.param("[worker]\nwarm = 1", "worker.warm", 2, "true or false", id="int for bool"),
        pytest.param("[worker]\nburst = true", "worker.burst", 2, "a whole", id="bool for int"),
        pytest.param("[api]\nlisten = 8470", "api.listen", 2, "a text", id="number for text"),
        pytest.param("[api]\nallowed_hosts = 'x'", "api.allowed_hosts", 2, "a list", id="no list"),
        pytest.param("[api]\nallowed_hosts = [1]", "api.allowed_hosts", 2, "a list", id="bad list"),
        pytest.param("[stop]\nsave = nan", "stop.save", 2, "finite", id="not a number"),
        pytest.param("[stop]\nsave = inf", "stop.save", 2, "finite", id="for ever"),
        pytest.param("[stop]\nsave = -1", "stop.save", 2, "at least 0.1", id="below the range"),
        pytest.param("[reconnect]\nfactor = 11", "reconnect.factor", 2, "at most 10", id="above"),
        pytest.param("[agent]\nhost = 'cron'", "agent.host", 2, "one of auto", id="no choice"),
        pytest.param("[agent]\nstate_path = ''", "agent.state_path", 2, "a text", id="no path"),
        pytest.param("agent.log_level = 3", "agent.log_level", 1, "a text", id="dotted key"),
        pytest.param("agent = {log_level = 3}", "agent.log_level", 1, "a text", id="inline table"),
        pytest.param("agent = 5", "agent", 1, "it must be a table", id="no table"),
        pytest.param("[[agent]]\n", "agent", 1, "it must be a table", id="array of tables"),
        pytest.param("[instance]\nid='a'", "instance", 1, "[[instance]]", id="one instance"),
        pytest.param(
            "[[instance]]\nid='a'\nengine='x'\n[[instance]]\nid='B'\nengine='x'",
            "instance[1].id",
            5,
            "cannot use 'B'",
            id="a bad id in the second instance",
        ),
        pytest.param("[[instance]]\nid='a'", "instance[0].engine", 1, "needs it", id="no engine"),
        pytest.param(
            "[[instance]]\nid='a'\nengine='e'\n[[instance]]\nengine='e'\nid='a'",
            "instance[1].id",
            6,
            "declared twice",
            id="twice",
        ),
        pytest.param(
            "[[instance]]\nid='a'\nengine='e'\nenabeld=true",
            "instance[0].enabeld",
            4,
            "did you mean enabled?",
            id="a typo in an instance",
        ),
        pytest.param(
            "[[instance]]\nid='a'\nengine='e'\n[instance.settings]\nd = 2020-01-01",
            "instance[0].settings.d",
            5,
            "must be text",
            id="a date, which JSON has not",
        ),
        pytest.param(
            "[reconnect]\nbase = 10\nmax = 5", "reconnect.base", 2, "more than", id="base over max"
        ),
        pytest.param("[reconnect]\nmax = 1", "reconnect.max", 2, "more than", id="max under base"),
        pytest.param(
            "[health]\ninterval = 5", "health.interval", 2, "health.timeout", id="check too long"
        ),
        pytest.param(
            "[health]\nproof_limit = 20", "health.proof_limit", 2, "health.interval", id="stale"
        ),
        pytest.param(
            "[stop]\nsave = 60", "stop.save", 2, "worker.stop_timeout", id="killed while saving"
        ),
        pytest.param(
            "[api]\nlisten = '0.0.0.0:80'\ntrust_loopback = true",
            "api.trust_loopback",
            3,
            "only for a loopback",
            id="trust of a routable address",
        ),
        pytest.param("[api]\nlisten = '1.2.3.4'", "api.listen", 2, "HOST:PORT", id="no port"),
        pytest.param("[api]\nlisten = '::1:80'", "api.listen", 2, "[ ]", id="bare IPv6"),
        pytest.param("[api]\nlisten = 'a:70000'", "api.listen", 2, "65535", id="port too high"),
        pytest.param(
            "[agent]\nstate_path='/s'\ncache_path='/s/sessions'",
            "agent.cache_path",
            3,
            "must lie apart",
            id="sessions in the cache",
        ),
        pytest.param(
            "[agent]\nstate_path='/s/t'\nsession_storage_path='/x'\ncache_path='/s'",
            "agent.cache_path",
            4,
            "must not lie in the cache",
            id="state in the cache",
        ),
        pytest.param(
            "[worker]\nrestart_delay = 20",
            "worker.restart_delay",
            2,
            "never be reached",
            id="burst that never counts",
        ),
        pytest.param(
            "[worker]\nmemory_high = 9_000_000_000",
            "worker.memory_high",
            2,
            "memory_max",
            id="high over max",
        ),
    ],
)
def test_a_mistake_is_named_with_key_file_and_line(load, tmp_path, *, text, key, line, cause):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_status == 78
    assert caught.value.field == key
    message = str(caught.value)
    assert message.startswith("cannot use ")
    assert key in message
    assert f"{tmp_path / 'agent.toml'}, line {line}" in message
    assert cause in message


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        pytest.param(b"[api\nlisten='x'", "line 1", id="syntax"),
        pytest.param(b"[api]\nlisten='x'\nlisten='y'", "line 3", id="a key twice"),
        pytest.param(b"[api]\n\xff\n", "not UTF-8 at line 2", id="no text"),
        pytest.param(b"x = " + b"[" * 20_000, "recursion", id="nested without end"),
        pytest.param(b"#" * ((1 << 20) + 1), "longer than", id="too long"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, raw, cause):
    path = tmp_path / "agent.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=cause) as caught:
        load_config(path, {})
    assert str(path) in str(caught.value)


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone.toml: No such file"):
        load_config(tmp_path / "gone.toml", {})


def test_a_relative_path_is_relative_to_the_file(load, tmp_path):
    config = load("[agent]\nstate_path='state'\nsession_storage_path='files'")
    assert config.agent.state_path == tmp_path / "state"
    assert config.session_root == tmp_path / "files"
    assert config.cache_root == tmp_path / "state" / "cache"
    assert config.api_socket == tmp_path / "state" / "api.sock"


def test_an_installed_agent_has_its_socket_under_run():
    assert Config().api_socket == Path("/run/wa-agent/api.sock")
    assert Config().session_root == Path("/var/lib/wa-agent/sessions")


def test_instances_are_declared(load):
    config = load(
        "[[instance]]\nid='sales'\nengine='sandbox'\nsettings={scan='manual', n=[1,2]}\n"
        "[[instance]]\nid='b'\nengine='web'\nenabled=false\n"
    )
    assert config.instance == (
        Declaration("sales", "sandbox", True, {"scan": "manual", "n": [1, 2]}),
        Declaration("b", "web", enabled=False),
    )


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("SESSION_STORAGE_PATH", "/x/s", "agent.session_storage_path", "/x/s"),
        ("CACHE_PATH", "/x/c", "agent.cache_path", "/x/c"),
        ("LOG_LEVEL", "WARNING", "agent.log_level", "warn"),
        ("LOG_LEVEL", "debug", "agent.log_level", "debug"),
        ("WHATSAPP_RECONNECTION_MAX_RETRIES", "7", "reconnect.attempts", 7),
        ("WHATSAPP_RECONNECTION_BASE_DELAY", "2500", "reconnect.base", 2.5),
        ("WHATSAPP_RECONNECTION_MAX_DELAY", "60000", "reconnect.max", 60.0),
        ("WHATSAPP_CIRCUIT_BREAKER_THRESHOLD", "3", "reconnect.breaker_failures", 3),
        ("WHATSAPP_CIRCUIT_BREAKER_TIMEOUT", "30000", "reconnect.breaker_pause", 30.0),
        ("WHATSAPP_HEALTH_CHECK_INTERVAL", "45000", "health.interval", 45.0),
        ("WA_AGENT_WORKER__WARM", "off", "worker.warm", False),
        ("WA_AGENT_WORKER__MEMORY_MAX", "0", "worker.memory_max", 0),
        ("WA_AGENT_API__ALLOWED_HOSTS", "a.b, c.d", "api.allowed_hosts", ("a.b", "c.d")),
        ("WA_AGENT_STOP__SAVE", "12", "stop.save", 12.0),
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


def test_a_keys_own_name_wins_over_its_alias(load):
    env = {"WHATSAPP_RECONNECTION_MAX_RETRIES": "7", "WA_AGENT_RECONNECT__ATTEMPTS": "8"}
    assert load("", env).reconnect.attempts == 8


def test_the_command_line_wins_over_all(load):
    env = {"WA_AGENT_STOP__SAVE": "8"}
    assert load("[stop]\nsave=7", env, **{"stop.save": "9"}).stop.save == 9.0


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"WA_AGENT_STOP__SAV": "1"}, ["WA_AGENT_STOP__SAV", "stop.sav"]),
        ({"WA_AGENT_STPO__SAVE": "1"}, ["WA_AGENT_STPO__SAVE"]),
        ({"WA_AGENT_SAVE": "1"}, ["WA_AGENT_SAVE"]),
        ({"WA_AGENT_INSTANCE__ID": "1"}, ["WA_AGENT_INSTANCE__ID"]),
        ({"WA_AGENT_SESSION_ROOT__X": "1"}, ["WA_AGENT_SESSION_ROOT__X"]),
        ({"WA_AGENT_STOP__SAVE": "soon"}, ["WA_AGENT_STOP__SAVE", "a number", "'soon'"]),
        ({"WA_AGENT_WORKER__WARM": "maybe"}, ["true or false"]),
        ({"WA_AGENT_WORKER__BURST": "1.5"}, ["a whole number"]),
        ({"WA_AGENT_STOP__SAVE": "nan"}, ["finite"]),
        ({"WHATSAPP_RECONNECTION_BASE_DELAY": "2"}, ["milliseconds", "at least 0.1"]),
        ({"WHATSAPP_RECONNECTION_MAX_DELAY": "1000"}, ["milliseconds", "reconnect.base"]),
        ({"LOG_LEVEL": "loud"}, ["LOG_LEVEL", "debug, info, warn, error"]),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(env, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, env)
    for word in words:
        assert word in str(caught.value)


def test_an_impossible_pair_blames_the_place_that_was_set(load):
    with pytest.raises(ConfigError, match="environment variable WA_AGENT_RECONNECT__MAX"):
        load("[reconnect]\nbase = 5\n", {"WA_AGENT_RECONNECT__MAX": "4"})


@pytest.mark.parametrize("name", ["CONFIG", "SOCKET", "URL", "KEY"])
def test_variables_of_the_command_line_are_no_settings(name):
    assert load_config(None, {f"WA_AGENT_{name}": "x"}) == Config()


def test_variables_of_other_programs_are_left_alone():
    assert load_config(None, {"WA_AGENTX": "1", "PATH": "/bin", "REDIS_URL": "x"}) == Config()


def test_the_example_file_is_the_dataclasses():
    assert EXAMPLE.read_text() == render_config(Config())
    assert load_config(EXAMPLE, {}) == Config()


def test_every_setting_has_a_meaning_in_one_line_and_stands_in_the_example():
    text = EXAMPLE.read_text()
    for name, section in sections(Config()).items():
        assert is_dataclass(section)
        assert f"[{name}]" in text
        assert [one.name for one in fields(section)] == [
            one.name for one, _ in settings_of(section)
        ]
        for one, mark in settings_of(section):
            assert mark.meaning
            assert "\n" not in mark.meaning
            assert f"\n# {one.name} = " in text


def test_a_rendered_file_reads_back_as_the_same_config(load):
    config = load(
        "[agent]\nlog_level='debug'\n[api]\nallowed_hosts=['x.example']\n[worker]\nwarm=false\n"
        "[[instance]]\nid='a'\nengine='sandbox'\nsettings={x={y=1}, z=\"q\\n#\"}\n"
    )
    assert load(render_config(config)) == config
    assert load(render_config(config, only_changed=False)) == config


def test_only_changed_values_stand_live():
    config = replace(Config(), stop=replace(Config().stop, save=12.0))
    live = tomllib.loads(render_config(config))
    assert {name: table for name, table in live.items() if table} == {"stop": {"save": 12.0}}


def test_a_reload_tells_what_only_a_restart_changes(load):
    new = load(
        "[agent]\nlog_level='debug'\nstate_path='/elsewhere'\n[api]\nlisten='127.0.0.1:1'\n"
        "[reconnect]\nattempts = 3\n[[instance]]\nid='a'\nengine='sandbox'\n"
    )
    assert changes_that_need_restart(Config(), new) == ["agent.state_path", "api.listen"]
    assert changes_that_need_restart(new, new) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8470", ("127.0.0.1", 8470)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_split(text, parts):
    assert split_address(text) == parts


def test_a_comment_does_not_hide_what_follows(load, tmp_path):
    with pytest.raises(ConfigError, match="line 3"):
        load('# three quotes: """\n[ stop ]\nsave = 0\n')


def test_lines_are_found_through_texts_of_several_lines():
    text = 'a = """\n[api]\nlisten = 1\n"""\n[api]\n"listen" = 2\n[x.y]\nz.w = 3\n'
    lines = find_lines(text)
    assert lines["api.listen"] == 6
    assert lines["x.y.z.w"] == 8


@given(st.text(alphabet=st.sampled_from("[]{}=.'\"#\n ab1,api.listen")))
def test_finding_lines_never_fails(text):
    count = len(text.splitlines())
    assert all(1 <= number <= count for number in find_lines(text).values())


@given(st.binary(max_size=200))
def test_any_bytes_give_a_config_or_a_named_error(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("config") / "agent.toml"
    path.write_bytes(raw)
    try:
        load_config(path, {})
    except ConfigError as error:
        assert str(path) in str(error)
