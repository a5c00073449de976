"""The drop-in that lets a backend's worker reach logs, auth folders and sockets."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.cli.backends.drop_in import drop_in_path, owning_group, render_reach
from agent.errors import ConfigError
from agent.host import units
from tests.lacking import lacks

SYSTEMD = Path(__file__).parents[3] / "systemd"
ALL = {
    "logs": [
        "file:/var/log/wt/app.log",
        "folder:/srv/wt/more logs",
        "pm2:/home/deploy/.pm2/logs",
        "pm2:/home/deploy/.pm2/logs/api",
        "journal:wt.service",
        "command:docker logs -f wt",
    ],
    "auth_folder": "/home/deploy/wt/auth:100%/session-{id}",
    "redis_url": "unix:///var/run/redis/redis-server.sock?db=2",
    "ca_file": "/var/lib/wt/ca.pem",
}
TEXT = """\
# /etc/systemd/system/wa-backend@shop.service.d/reach.conf
# What the worker of backend shop must reach.
# What 'docker' itself reads, and its group, are yours to add;
# a program of Node.js needs MemoryDenyWriteExecute=no as well.
# The user wa-worker needs rights there; where it has none yet:
#   setfacl -R -m u:wa-worker:rX -m d:u:wa-worker:rX "/var/log/wt"
#   setfacl -R -m u:wa-worker:rX -m d:u:wa-worker:rX "/srv/wt/more logs"
#   setfacl -R -m u:wa-worker:rX -m d:u:wa-worker:rX "/home/deploy/.pm2/logs"
#   setfacl -R -m u:wa-worker:rX -m d:u:wa-worker:rX "/var/lib/wt"
#   setfacl -R -m u:wa-worker:rwX -m d:u:wa-worker:rwX "/home/deploy/wt/auth:100%"
[Service]
ProtectHome=tmpfs
BindReadOnlyPaths="-/var/log/wt"
BindReadOnlyPaths="-/srv/wt/more logs"
BindReadOnlyPaths="-/home/deploy/.pm2/logs"
BindReadOnlyPaths="-/var/log/journal"
BindReadOnlyPaths="-/var/lib/wt"
BindPaths="-/home/deploy/wt/auth:100%%"
SupplementaryGroups=systemd-journal redis
"""


def in_redis(_path: Path) -> str:
    return "redis"


def test_all_that_a_backend_may_need_is_named():
    assert render_reach("shop", ALL, in_redis) == TEXT
    assert str(drop_in_path("shop")) == "/etc/systemd/system/wa-backend@shop.service.d/reach.conf"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": "http://127.0.0.1:8080", "key": "secret", "ca_file": ""},
        {"ca_file": "/etc/ssl/certs/own.pem"},
    ],
)
def test_a_backend_without_needs_gets_no_drop_in(settings: dict[str, Any]):
    assert render_reach("shop", settings) == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"logs": ["folder:/home"]},
        {"logs": ["folder:/"]},
        {"logs": ["folder:/srv/../etc"]},
        {"logs": ["folder:/srv/a\nUser=root"]},
        {"logs": ["folder:/srv/a\\"]},
        {"auth_folder": "/{id}"},
        {"redis_url": "unix:///run/x%0a[Service]/redis.sock"},
        {"ca_file": "/etc/wa-agent/x\nUser=root"},
    ],
)
def test_f70_what_would_show_too_much_or_break_the_file_is_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match="cannot let a worker reach"):
        render_reach("shop", settings)


def test_the_group_of_a_socket_is_the_one_it_has(tmp_path: Path):
    path = tmp_path / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        os.chown(path, -1, os.getgid())
        path.chmod(0o777)
        assert owning_group(path) == ""
    assert owning_group(tmp_path / "none") == ""


@pytest.mark.parametrize("settings", [ALL, {"logs": ["journal:wt"]}], ids=["all", "journal"])
def test_systemd_takes_the_unit_with_its_drop_in(settings: dict[str, Any], tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        lacks("this machine has no systemd-analyze")
    unit = (SYSTEMD / units.BACKENDS.template).read_text()
    (tmp_path / units.BACKENDS.template).write_text(
        unit.replace("@PREFIX@/venv/bin/python", "/bin/true").replace("@PREFIX@/venv", "/usr")
    )
    shutil.copy(SYSTEMD / units.INSTANCES_SLICE, tmp_path)
    drop_in = tmp_path / f"{units.BACKENDS.unit('shop')}.d" / "reach.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(render_reach("shop", settings, in_redis))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units.BACKENDS.unit("shop")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "reach.conf" not in done.stderr and "wa-backend@" not in done.stderr
