"""Quality of policies, annotators and segmenters."""
