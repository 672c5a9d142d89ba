"""What this machine lacks, and the line that provides it: for ``apyfal doctor``.

Each module looks at one area and yields findings. Nothing is changed; no secret is printed; no address is contacted
that the user did not name.
"""
