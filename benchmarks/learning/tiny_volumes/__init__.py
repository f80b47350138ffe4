"""From nothing to a vision-language policy of volumes: experts, fine-tuning, table, on a CPU.

    python -m benchmarks.learning.tiny_volumes --out runs/tiny_volumes

The stages are those of `benchmarks.learning.tiny_chain`, each of which goes on where it was when
the same command is given again; here every turn has two images, the slice in view and the overview:

1. `oracle-key-slice` plays training volumes in `MedSegVolume-v0`: a box, propagate, stop.
2. Its episodes are exported as conversations, as `MedSegVolumeChat-v0` shows them.
3. First turns: one volume with a question for each of its targets, answered as the expert begins.
4. Supervised fine-tuning of a tiny model that knows nothing on 3, at a steady rate.
5. The same on 2 and 3 mixed, the rate falling to its end.
6. A table over held-out volumes: the model greedy, the same shown other volumes' images, baselines
   without the truth and the oracle that it learned from; 3D Dice and the share of valid calls.

All volumes are synthetic (`phantoms-volume`); training takes the train split, the table the test
split.
"""
