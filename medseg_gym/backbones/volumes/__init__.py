"""Contracts of backbones that know more of a volume than one slice at a time."""

from medseg_gym.backbones.volumes.whole_volume import VolumeBackbone

__all__ = ["VolumeBackbone"]
