"""How good policies, annotators and segmenters are."""
