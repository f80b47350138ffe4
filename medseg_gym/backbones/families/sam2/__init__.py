"""SAM 2 and MedSAM2, batched over images."""
