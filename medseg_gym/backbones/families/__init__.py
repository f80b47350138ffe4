"""The segmenters: `pocket`, LiteMedSAM, SAM, SAM 2, MedSAM2, IMISNet, the control `ellipse`."""
