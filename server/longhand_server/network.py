"""The residual CRNN in PyTorch: image columns in, label log-probabilities per frame out.

A convolutional trunk with residual blocks (He et al., 2016), a maximum over the rows of each column, two
bidirectional LSTM layers and a linear output, trained with CTC (Graves et al., 2006). The column maximum and
the auxiliary CTC "shortcut" head follow Retsinas et al., "Best Practices for a Handwritten Text Recognition
System" (DAS 2022).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from longhand_server.config import NetworkConfig

FRAME_STRIDE = 4
Widths = TypeVar("Widths", int, Tensor)


def frame_count(width: Widths) -> Widths:
    """Frames T of an image of the given width, px; of several, (N,) for (N,)."""
    return -(-width // FRAME_STRIDE)


def _column_mask(columns: Tensor, width: int) -> Tensor:
    """(N, 1, 1, width) of 1 where a column belongs to the image and 0 in its padding."""
    positions = torch.arange(width, device=columns.device)
    return (positions[None, :] < columns[:, None])[:, None, None, :]


def _folded(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm), nn.Identity()


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels_out)
        self.skip: nn.Module = nn.Identity()
        if channels_in != channels_out or stride != (1, 1):
            self.skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        if mask is not None:
            y = y * mask
        y = self.norm2(self.conv2(y))
        y = functional.relu(y + self.skip(x), inplace=True)
        return y if mask is None else y * mask


class LineNetwork(nn.Module):
    """Residual CRNN with a CTC output."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        stem, *stages = config.channels
        self.stem = nn.Conv2d(1, stem, 5, 2, 2, bias=False)
        self.stem_norm: nn.Module = nn.BatchNorm2d(stem)
        blocks: list[nn.Module] = []
        previous = stem
        for stage, (channels, count) in enumerate(zip(stages, config.blocks, strict=True)):
            for i in range(count):
                # Width is halved by the stem and by the second stage only: 4 px a frame.
                stride = (1, 1) if i or stage == 0 else ((2, 2) if stage == 1 else (2, 1))
                blocks.append(_Block(previous, channels, stride))
                previous = channels
        self.blocks = nn.ModuleList(blocks)
        self.halving_block = config.blocks[0]
        self.dropout = nn.Dropout(config.dropout)
        self.rnn = nn.LSTM(
            previous,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.output = nn.Linear(2 * config.hidden, config.labels)
        self.shortcut = nn.Conv1d(previous, config.labels, 3, padding=1)

    def features(self, images: Tensor, widths: Tensor | None) -> Tensor:
        """(N, 1, H, W) images to (N, C, T) column features; padding columns come out 0."""
        mask = half = quarter = None
        if widths is not None:
            # Otherwise the host waits until a GPU has done all that it has to do.
            here = widths.to(images.device, non_blocking=True)
            half = torch.div(here + 1, 2, rounding_mode="floor")
            quarter = torch.div(half + 1, 2, rounding_mode="floor")
        x = self.stem_norm(self.stem(images))
        x = functional.relu(x, inplace=True)
        if half is not None:
            mask = _column_mask(half, x.shape[-1])
            x = x * mask
        for i, block in enumerate(self.blocks):
            if i == self.halving_block and quarter is not None:
                mask = _column_mask(quarter, -(-x.shape[-1] // 2))
            x = block(x, mask)
        highest: Tensor = x.amax(2)
        return highest

    def fold_norms(self) -> None:
        """Makes every batch normalisation part of the convolution before it: for inference, and for good."""
        self.stem, self.stem_norm = _folded(self.stem, self.stem_norm)
        for block in self.blocks:
            assert isinstance(block, _Block)
            block.conv1, block.norm1 = _folded(block.conv1, block.norm1)
            block.conv2, block.norm2 = _folded(block.conv2, block.norm2)

    def training_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unnormalised outputs of the main and of the shortcut head, each (N, T, V).

        Unlike :meth:`forward` it takes the padding for paper that belongs to the image: masks and packed
        sequences cost more than a tenth of a training step, and width-bucketed batches have little padding.
        """
        features = self.features(images, None)
        hidden, _ = self.rnn(features.transpose(1, 2))
        return self.output(self.dropout(hidden)), self.shortcut(features).transpose(1, 2)

    def forward(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        """Log-probabilities of the labels.

        Args:
            images: (N, 1, H, W) float, ink 1, paper 0; columns at or beyond an image's width are 0.
            widths: (N,) int64 true widths in px, best on the CPU, or None when every image fills W.

        Returns:
            (N, T, V) float32 natural-log probabilities, T = ceil(W / 4), blank = label 0. The frames of an
            image do not depend on its padding or on the other images of the batch (in evaluation mode).
        """
        sequence = self.features(images, widths).transpose(1, 2)
        if widths is None:
            hidden, _ = self.rnn(sequence)
        else:
            frames = frame_count(widths).cpu()
            # Sorting makes a GPU wait for the host; lines that come widest first need none.
            in_order = bool((frames[1:] <= frames[:-1]).all())
            packed = pack_padded_sequence(sequence, frames, batch_first=True, enforce_sorted=in_order)
            hidden, _ = pad_packed_sequence(
                self.rnn(packed)[0], batch_first=True, total_length=sequence.shape[1]
            )
        return functional.log_softmax(self.output(hidden).float(), -1)
