"""Truth of DICOM series: SEG and RTSTRUCT, read and placed on the slices of their images.

`structures` and `contours` read and draw an RTSTRUCT (`filling` turns outlines into masks);
`segmentation` reads a SEG, `segment_slices` finds the slice of each frame, and `regridding` carries
frames on another grid over. Each yields `Placed` targets.
"""
