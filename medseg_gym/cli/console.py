"""The console that commands print on."""

from __future__ import annotations

from medseg_gym.display.terminal import make_console

console = make_console()
