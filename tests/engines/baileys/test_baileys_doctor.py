"""What keeps the baileys engine from working on a machine: each finding with its cure."""

from pathlib import Path

from agent.engines.baileys.doctor import examine
from agent.engines.baileys.packages import LIBRARY, MARK, packages_folder


def node(folder: Path, version: str) -> Path:
    path = folder / "node"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_node_and_packages_are_named_with_the_commands_that_bring_them(tmp_path: Path) -> None:
    found = {each.code: each for each in examine(tmp_path, {"WA_NODE": "/nonexistent/node"})}
    assert "Node 20 or newer: /nonexistent/node is no Node" in found["node_missing"].sentence
    assert "scripts/install --with baileys" in found["node_missing"].cure
    cure = found["packages_missing"].cure
    assert f"-m agent.engines.baileys.fetch {tmp_path}. Without a network: run `npm ci" in cure
    assert all(each.serious for each in found.values())


def test_the_packages_are_there_when_the_library_is_whole(tmp_path: Path) -> None:
    env = {"WA_NODE": str(node(tmp_path, "v22.1.0"))}
    folder = packages_folder(tmp_path)
    (folder / LIBRARY).parent.mkdir(parents=True)
    (folder / MARK).touch()
    assert [each.code for each in examine(tmp_path, env)] == ["packages_missing"]
    (folder / LIBRARY).write_text("{}")
    assert examine(tmp_path, env) == []


def test_a_node_where_no_unit_sees_it_is_none_for_an_installed_agent(tmp_path: Path) -> None:
    env = {"WA_NODE": str(node(tmp_path, "v22.1.0"))}
    assert "node_missing" not in [each.code for each in examine(tmp_path, env)]
    found = {each.code: each for each in examine(tmp_path, env, installed=True)}
    assert "a worker's unit sees nothing" in found["node_missing"].sentence
