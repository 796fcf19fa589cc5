"""Sparse voxel tensors and convolutions on them; knows nothing of LiDAR.

A level of voxels is a sorted vector of integer keys (`Voxels`), features are rows beside it (`SparseTensor`), and a
convolution is a list of row pairs for every kernel offset (`KernelMap`).
"""
