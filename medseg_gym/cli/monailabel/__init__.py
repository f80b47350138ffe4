"""Options of `medseg serve --monailabel`, and policies by spec for it."""

from medseg_gym.cli.monailabel.switches import MonaiLabelSwitches, check_switches, make_extension

__all__ = ["MonaiLabelSwitches", "check_switches", "make_extension"]
