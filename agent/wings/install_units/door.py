"""What the installation of units brings to the program."""

from agent.wing import Wing

WING = Wing(name="install_units", commands={"commands": "install-units"}, title="this installation")
