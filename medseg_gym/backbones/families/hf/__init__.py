"""Promptable segmenters of transformers: "hf:FOLDER" or "hf:OWNER/NAME", found by `model_type`."""
