"""The privacy mechanism as public constants, its accounting, and the calibration of its noise."""
