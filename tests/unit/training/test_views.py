"""Two looks at a line, and how far what is read from them lies apart."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: training)")

from longhand_training.views import disagreement, two_views


def test_two_looks_hide_different_parts_and_leave_the_padding_alone() -> None:
    torch.manual_seed(3)
    images = torch.zeros(40, 1, 64, 640)
    widths = torch.full((40,), 560)
    images[:, :, 20:44, :560] = 0.7
    looks = two_views(images, widths)
    assert looks.shape == (80, 1, 64, 640)
    assert looks.min() >= 0
    assert looks.max() <= 1
    assert not looks[..., 560:].any()
    # A hidden column has the line's mean darkness, 0.7 * 24 / 64, and nothing else.
    hidden = (looks[..., :560].std(2) < 1e-3)[:, 0]
    assert 0.06 < hidden.float().mean() < 0.13
    assert looks[..., :560][hidden[:, None, None, :].expand(80, 1, 64, 560)].mean() == pytest.approx(
        0.7 * 24 / 64, abs=1e-3
    )
    one, other = hidden[:40], hidden[40:]
    assert (one & other).float().mean() < 0.5 * one.float().mean()
    # Hidden spans are as wide as letters, not single columns.
    begun = hidden[:, 1:] & ~hidden[:, :-1]
    assert hidden.sum() > 8 * begun.sum()


def test_looks_differ_in_the_strength_of_the_ink_in_grain_and_in_bands_of_rows() -> None:
    torch.manual_seed(4)
    images = torch.full((100, 1, 64, 320), 0.5)
    images[:, :, :, ::2] = 0.7
    looks = two_views(images, torch.full((100,), 320))[:, 0]
    ink = looks[:, :, ::2].flatten(1)
    strengths = ink.median(1).values
    assert 0.03 < strengths.std() < 0.08
    grains = (ink - strengths[:, None]).abs().median(1).values
    assert 0.003 < grains.mean() < 0.03
    assert grains.max() > 5 * grains.min()
    banded = ((looks - 0.6).abs() < 1e-4).all(2)  # whole rows of the mean darkness
    assert 0.15 < banded.any(1).float().mean() < 0.4
    assert banded.sum(1).max() <= 8


def test_the_same_seed_gives_the_same_looks() -> None:
    images, widths = torch.rand(3, 1, 64, 128), torch.tensor([128, 100, 64])
    torch.manual_seed(5)
    first = two_views(images, widths)
    torch.manual_seed(5)
    assert torch.equal(first, two_views(images, widths))


def test_the_disagreement_is_the_mean_of_both_divergences_over_the_frames_of_each_line() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(6, 5, 4))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    frames, lengths = [5, 2, 4], [2, 1, 3]
    wanted = 0.0
    for line in range(3):
        p, q = (np.exp(log_probs[line + 3 * look, : frames[line]]) for look in (0, 1))
        divergences = (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
        wanted += 0.5 * divergences / lengths[line] / 3
    tensor = torch.tensor(log_probs, requires_grad=True)
    found = disagreement(tensor, torch.tensor(frames), torch.tensor(lengths))
    assert found.item() == pytest.approx(wanted)
    # An aim gets no gradient: the derivative of p log(p / q) by log q alone, -p.
    found.backward()  # type: ignore[no-untyped-call]
    gradient = tensor.grad.numpy()
    for line in range(3):
        for look in (0, 1):
            aim = np.exp(log_probs[line + 3 * (1 - look)])
            aim[frames[line] :] = 0
            np.testing.assert_allclose(gradient[line + 3 * look], -0.5 * aim / lengths[line] / 3, atol=1e-9)


def test_equal_looks_do_not_disagree() -> None:
    log_probs = torch.randn(2, 6, 5).log_softmax(-1).repeat(2, 1, 1)
    assert disagreement(log_probs, torch.tensor([6, 3]), torch.tensor([2, 2])).item() == pytest.approx(0)
