"""Cases in a file: bright squares, synthetic."""

import numpy as np

from medseg_gym import Case


def square(number: int) -> Case:
    """Make a case of its own size, a group of its own."""
    height, width = 40 + 8 * (number % 3), 56 - 8 * (number % 2)
    image = np.random.default_rng(number).integers(0, 80, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[8 + number % 5 : 30, 10 : 34 + number % 7] = True
    image[mask] += 130
    return Case(f"square{number}", image, mask, "bright square", group=f"g{number}", synthetic=True)


Squares = [square(number) for number in range(6)]
