"""Two looks at every line, each with other parts hidden, that are to be read alike (CR-CTC).

Yao et al., "CR-CTC: Consistency regularization on CTC for improved speech recognition" (ICLR 2025): the network
reads two differently masked copies of a line, and besides the CTC loss of each the distance between what it says of
them, frame by frame, is made small. Masks are SpecAugment's (Park et al., 2019), on columns and rows of the image.
All of it runs where the batch is, in a few operations on the whole of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Part of the columns that is hidden, on average, and px of a hidden span (a letter is some 18 px wide).
_HIDDEN = 0.1
_SHORTEST, _LONGEST = 4, 18
# Part of the lines that also lose a band of rows, and its px at most.
_BANDS = 0.3
_HIGHEST_BAND = 8


def two_views(images: Tensor, widths: Tensor) -> Tensor:
    """Two looks at each line: other columns and rows hidden, other ink, other grain.

    Args:
        images: (N, 1, H, W) float, ink 1, paper 0.
        widths: (N,) int64, px.

    Returns:
        (2N, 1, H, W): first one look at every line, then the other.
    """
    widths = widths.to(images.device).repeat(2)
    images = images.repeat(2, 1, 1, 1)
    inside = (torch.arange(images.shape[3], device=images.device) < widths[:, None])[:, None, None, :]
    pressure = torch.exp(0.2 * torch.randn(len(images), 1, 1, 1, device=images.device))
    grain = 0.03 * torch.rand(len(images), 1, 1, 1, device=images.device)
    seen = images.pow(pressure) + grain * torch.randn_like(images)
    # What hides has the line's mean darkness, so that the network's idea of a usual line stays as it is.
    mean = images.sum((1, 2, 3)) / (images.shape[2] * widths)
    hidden = _hidden_columns(widths, images.shape[3])[:, None, None, :]
    hidden = hidden | _hidden_rows(len(images), images.shape[2], images.device)[:, None, :, None]
    return torch.where(hidden, mean[:, None, None, None], seen).clamp_(0.0, 1.0) * inside


def _hidden_columns(widths: Tensor, width: int) -> Tensor:
    """(N, W) bool: spans at random."""
    mean = 0.5 * (_SHORTEST + _LONGEST)
    spans = max(round(_HIDDEN * width / mean), 1)
    begin = torch.rand(len(widths), spans, device=widths.device) * widths[:, None] - 0.5 * mean
    length = _SHORTEST + (_LONGEST - _SHORTEST) * torch.rand_like(begin)
    x = torch.arange(width, device=widths.device)
    return ((x >= begin[..., None]) & (x < (begin + length)[..., None])).any(1)


def _hidden_rows(count: int, height: int, device: torch.device) -> Tensor:
    """(N, H) bool: a band in some of the lines."""
    begin = torch.rand(count, 1, device=device) * height
    size = _HIGHEST_BAND * torch.rand_like(begin) * (torch.rand_like(begin) < _BANDS)
    y = torch.arange(height, device=device)
    return (y >= begin) & (y < begin + size)


def disagreement(log_probs: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """How far what is read from two looks lies apart.

    The mean of the Kullback-Leibler divergences of either from the other, where the one that is the aim gets no
    gradient: a sum over the frames of a line, per label of its text (as CTC's loss is), and the mean over lines.

    Args:
        log_probs: (2N, T, V), first one look at every line, then the other.
        frames: (N,) frames of each line.
        lengths: (N,) labels of each text.

    Returns:
        A scalar.
    """
    one, other = log_probs.chunk(2)
    apart = _divergence(one.detach(), other) + _divergence(other.detach(), one)
    within = torch.arange(apart.shape[1], device=apart.device) < frames.to(apart.device)[:, None]
    return 0.5 * ((apart * within).sum(1) / lengths.to(apart.device).clamp(min=1)).mean()


def _divergence(aim: Tensor, log_probs: Tensor) -> Tensor:
    return functional.kl_div(log_probs, aim, reduction="none", log_target=True).sum(-1)
