"""Measurements, run by hand (`make bench`) and never as tests: a figure depends on the machine and the moment."""
