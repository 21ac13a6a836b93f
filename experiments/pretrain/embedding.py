"""An initialisation of the token embeddings: the positive PMI of neighbours, reduced by an SVD.

Words with the same neighbours start near each other, which saves most of the early training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ppmi_svd(
    rows: Sequence[Sequence[int]], vocabulary: int, width: int, *, window: int = 4, seed: int = 0
) -> np.ndarray:
    """Embeddings from co-occurrence counts (Levy, Goldberg & Dagan 2015: PPMI, half the spectrum).

    Args:
      rows: token ids of texts.
      vocabulary: V.
      width: D.
      window: how far apart two tokens may be; near ones count more (1 / distance).
      seed: of the random projection of the SVD and of tokens that never occur.

    Returns:
      float32 [V, D] with root mean square 1 over the tokens that occur.
    """
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd

    lengths = np.asarray([len(row) for row in rows])
    ids = np.concatenate([np.asarray(row, np.int64) for row in rows])
    row_of = np.repeat(np.arange(len(rows)), lengths)
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        together = row_of[distance:] == row_of[:-distance]
        left, right = ids[:-distance][together], ids[distance:][together]
        weight = np.full(len(left), 1.0 / distance)
        counts += sparse.coo_matrix((weight, (left, right)), counts.shape).tocsr()
    counts = (counts + counts.T).tocoo()
    total = counts.sum()
    # Context counts to the power 0.75, as in word2vec: rare contexts would dominate otherwise.
    word = np.asarray(counts.sum(1)).ravel() / total
    context = np.asarray(counts.sum(0)).ravel() ** 0.75
    context /= context.sum()
    pmi = np.log(counts.data / total / (word[counts.row] * context[counts.col]))
    keep = pmi > 0
    matrix = sparse.coo_matrix(
        (pmi[keep], (counts.row[keep], counts.col[keep])), counts.shape
    ).tocsr()
    u, s, _ = randomized_svd(matrix, n_components=width, n_iter=4, random_state=seed)
    vectors = u * np.sqrt(s)[None]
    seen = word > 0
    # A random rotation spreads the leading directions over the coordinates, and so over the heads.
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]
    vectors = vectors @ rotation
    vectors = vectors / np.sqrt((vectors[seen] ** 2).mean())
    new = np.random.default_rng(seed + 1).standard_normal((vocabulary, width))
    return np.where(seen[:, None], vectors, new).astype(np.float32)
