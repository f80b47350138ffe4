"""Parts of `scripts.samples.build`, which makes the packaged sample cases.

`origins` names the packages and the checksums of the files read from them, `fetching` gets and
checks them. `lesions`, `chest` and `nuclei` each cut the slices of one origin into a `Pack`, and
`index` and `readme` describe it.
"""
