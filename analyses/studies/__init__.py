"""The studies of `interp study NAME`, a file or a folder each."""
