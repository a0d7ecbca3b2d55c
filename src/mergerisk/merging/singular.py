"""Decompositions of task matrices by their Gram matrices: several times cheaper than full SVDs.

A Gram matrix squares the singular values, and so costs half of the digits. It is therefore formed in float64,
unless the wanted values lie close together, where float32 loses nothing that matters (`truncated_svd`).
Directions whose singular value is rounding noise count as null, where an SVD would return arbitrary vectors.
"""

from __future__ import annotations

import torch

_NULL = {torch.float32: 1e-5, torch.float64: 1e-7}
"""Singular values below this share of the largest are rounding noise, by the dtype of the weights."""
_SAFE_SPREAD = 100.0
"""Largest over smallest wanted eigenvalue up to which a float32 Gram matrix keeps 5 digits of each."""


def truncated_svd(
    matrix: torch.Tensor, rank: int, *, size: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``rank`` largest singular values with their vectors, largest first.

    Args:
        matrix: m × n, float32 or float64.
        rank: 1 to min(m, n).
        size: of the largest singular value that noise is told by, if the matrix is what is left of a larger one.

    Returns:
        U (m × r), S (r), V (n × r), in float64; r is smaller than ``rank`` if the matrix's own rank is.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = truncated_svd(matrix.mT, rank, size=size)
        return left, values, right
    for dtype in dict.fromkeys((matrix.dtype, torch.float64)):
        squares, left = _largest_eigenpairs(gram(matrix.mT, dtype), rank)
        if float(squares[0]) <= _SAFE_SPREAD * float(squares[-1]):
            break
    values = squares.clamp(min=0).sqrt()
    wanted = values > _NULL[matrix.dtype] * max(float(values[0]), size)
    values, left = values[wanted], left[:, wanted]
    right = (matrix.to(left.dtype).mT @ left) / values
    return left.double(), values.double(), right.double()


def output_directions(
    matrix: torch.Tensor, moments: torch.Tensor, rank: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The principal directions of what a linear layer puts out: the ``rank`` largest eigenvectors of W G Wᵀ.

    Args:
        matrix: W, m × n, in float64.
        moments: G = XᵀX / N of what it reads, n × n, in float64.
        rank: 1 to m.
        dtype: of the weights, which tells what is noise.

    Returns:
        Directions (m × r, orthonormal) and eigenvalues (r), largest first, without null ones.
    """
    if matrix.shape[0] <= matrix.shape[1]:
        squares, left = _largest_eigenpairs(matrix @ moments @ matrix.mT, rank)
        wanted = squares > _NULL[dtype] ** 2 * squares[0]
        return left[:, wanted], squares[wanted]
    squares, vectors = torch.linalg.eigh(moments)
    outputs = matrix @ (vectors * squares.clamp(min=0).sqrt())
    squares, right = _largest_eigenpairs(gram(outputs, torch.float64), min(rank, matrix.shape[1]))
    wanted = squares > _NULL[dtype] ** 2 * squares[0]
    return (outputs @ right[:, wanted]) / squares[wanted].sqrt(), squares[wanted]


def gram(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """XᵀX of an m × n matrix, n × n."""
    wide = matrix.to(dtype)
    if wide.device.type != "cpu":
        return wide.mT @ wide
    array = wide.numpy()
    return torch.from_numpy(array.T @ array)  # NumPy sees the symmetry and computes half


def inverse_root(gram_matrix: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(XᵀX)^(−1/2) on the range of X, float64; and X's singular values, largest first.

    X times it is X's orthogonal polar factor, without an SVD of X.

    Args:
        gram_matrix: XᵀX in float64, n × n.
        dtype: of X, which tells what is noise.
    """
    if len(gram_matrix) == 0:
        return gram_matrix, gram_matrix.new_zeros(0)
    squares, vectors = _largest_eigenpairs(gram_matrix, len(gram_matrix))
    values = squares.clamp(min=0).sqrt()
    wanted = values > _NULL[dtype] * values[0]
    vectors = vectors[:, wanted]
    return (vectors / values[wanted]) @ vectors.mT, values


def _largest_eigenpairs(symmetric: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest eigenvalues, descending, and their vectors as columns."""
    size = len(symmetric)
    if symmetric.device.type != "cpu" or count == size:
        values, vectors = torch.linalg.eigh(symmetric)
    else:
        import scipy.linalg  # loading it takes longer than many a merge that needs none

        found = scipy.linalg.eigh(
            symmetric.numpy(), subset_by_index=(size - count, size - 1), driver="evr", check_finite=False
        )
        values, vectors = map(torch.from_numpy, found)
    return values.flip(0)[:count], vectors.flip(1)[:, :count]
