"""Kernels in Verilog as accelerators: translated by Verilator, compiled with a harness, run as a simulated card."""
