"""Training of `pocket`, the small segmenter inside the package.

`python -m scripts.pocket run` does everything: it lets LiteMedSAM look at the training
images, trains, and writes the best weights and the curve. Every command goes on where a killed
one was. No test case is ever opened: training draws from train splits, the choice of the best
weights from val splits.
"""
