"""Arguments that several steps give: the user's own things, and a segmenter without weights."""

OWN = ("--cases", "./cases.py:Squares", "--reward", "./reward.py:final_iou")
POLICIES = "my_pkg.policies:Bright,./bright.py:Bright?threshold=150,oracle-click"
SMALL = ("--backbone", "ellipse")
