"""CTC prefix beam search with n-gram language models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from longhand_decoder import _core
from longhand_decoder._core import DecoderStream, Hypothesis, NgramLanguageModel
from longhand_decoder.options import BeamSearchOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _FloatArray = NDArray[np.floating[Any]]

_Result = TypeVar("_Result", str, list[Hypothesis])
_Item = TypeVar("_Item")

_DEFAULT_OPTIONS = BeamSearchOptions()
# After so many lines of a batch for each thread Python sees whether Ctrl-C was pressed: few enough for that, and so
# many that the threads hardly ever wait for each other.
_LINES_AT_A_TIME = 64


class CtcBeamSearchDecoder:
    """Turns a CTC network's output into text.

    Immutable: any number of threads may use one decoder at a time. It works without the interpreter's lock.

    Args:
        labels: one character for each column of the network's output, in order; the blank is "".
        word_model: scores words. Its vocabulary is also the list of the known words.
        character_model: scores characters; its tokens are single characters and U+2581 for a space.
        lexicon: known words, at least one, in place of the word model's vocabulary.
        label_priors: (V,) how often the network says each label, on average over many frames, at least 0;
            only the ratios between the characters count. See `BeamSearchOptions.prior_weight`.
        options: what holds for every call that brings no options of its own.
        threads: how many threads share out a batch, at least 1.

    Raises:
        ValueError: a label is no single character or stands twice, there is not exactly one blank, the priors
            are not one number each, the lexicon is empty or a string or one of its words has white space in it,
            or an option is out of range.
        TypeError: an argument, or an entry of one, is of another type than it says.

    A. Graves (2012), "Supervised Sequence Labelling with Recurrent Neural Networks", section 7.5;
    A. Hannun et al. (2014), "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
    Recurrent DNNs".
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        word_model: NgramLanguageModel | None = None,
        character_model: NgramLanguageModel | None = None,
        lexicon: Iterable[str] | None = None,
        label_priors: Sequence[float] | _FloatArray | None = None,
        options: BeamSearchOptions = _DEFAULT_OPTIONS,
        threads: int = 1,
    ) -> None:
        if isinstance(lexicon, str):
            raise ValueError(f"lexicon must be a sequence of words, got the string {lexicon!r}")
        known_words = [] if lexicon is None else list(lexicon)
        if lexicon is not None and not known_words:
            raise ValueError("lexicon is empty; None stands for the word model's vocabulary")
        _require_options(options)
        self._labels = tuple(labels)
        self._threads = threads
        self._options = options
        self._core = _core.Decoder(
            list(self._labels),
            word_model,
            character_model,
            known_words,
            list(() if label_priors is None else label_priors),
            options,
            threads,
        )
        self._default = self._core.prepare(options)
        self._latest: tuple[BeamSearchOptions, _core.PreparedOptions] = (options, self._default)

    @property
    def labels(self) -> tuple[str, ...]:
        """One character for each column; the blank is the empty string."""
        return self._labels

    @property
    def options(self) -> BeamSearchOptions:
        """What holds for calls that bring no options."""
        return self._options

    def decode(self, log_probs: _FloatArray, options: BeamSearchOptions | None = None) -> list[Hypothesis]:
        """Reads one line.

        Args:
            log_probs: (T, V) floating point, natural logarithms (or logits, if the options say so).
            options: in place of the decoder's own.

        Returns:
            Up to `alternatives` hypotheses, best first, at least one.

        Raises:
            ValueError: the array has not V columns, or a NaN, +inf, a positive logarithm or a frame of only
                -inf in it; or an option is out of range.
            TypeError: it is no numpy array.
        """
        return self._core.decode(log_probs, self._prepare(options))

    @overload
    def decode_batch(
        self,
        log_probs: Iterable[_FloatArray],
        options: BeamSearchOptions | None = None,
        *,
        return_exceptions: Literal[False] = False,
    ) -> list[list[Hypothesis]]: ...

    @overload
    def decode_batch(
        self,
        log_probs: Iterable[_FloatArray],
        options: BeamSearchOptions | None = None,
        *,
        return_exceptions: Literal[True],
    ) -> list[list[Hypothesis] | ValueError | TypeError | MemoryError]: ...

    def decode_batch(
        self,
        log_probs: Iterable[_FloatArray],
        options: BeamSearchOptions | None = None,
        *,
        return_exceptions: bool = False,
    ) -> Any:
        """Reads many lines, on the decoder's threads.

        Args:
            log_probs: one (T_i, V) array a line; the lengths may differ.
            options: in place of the decoder's own, for all lines.
            return_exceptions: True puts the exception of a line that cannot be read in its place; False
                raises the first one, after all lines are done.

        Returns:
            What `decode` returns for each line, in order.

        Raises:
            ValueError: as `decode`; the message names the line.
            TypeError: a line is no numpy array.
        """
        results = self._batch(self._core.decode_batch, log_probs, options)
        return results if return_exceptions else _without_exceptions(results)

    def decode_text(self, log_probs: _FloatArray, options: BeamSearchOptions | None = None) -> str:
        """Reads one line and gives its text alone: `decode(...)[0].text`, without the work for the rest.

        Args:
            log_probs: as `decode`.
            options: in place of the decoder's own.

        Raises:
            ValueError: as `decode`.
            TypeError: `log_probs` is no numpy array.
        """
        return self._core.decode_text(log_probs, self._prepare(options))

    def decode_text_batch(
        self, log_probs: Iterable[_FloatArray], options: BeamSearchOptions | None = None
    ) -> list[str]:
        """`decode_text` for many lines, on the decoder's threads.

        Args:
            log_probs: one (T_i, V) array a line; the lengths may differ.
            options: in place of the decoder's own, for all lines.

        Returns:
            One text a line, in order.

        Raises:
            ValueError: as `decode`; the message names the line.
            TypeError: a line is no numpy array.
        """
        return _without_exceptions(self._batch(self._core.decode_text_batch, log_probs, options))

    def decode_greedy(self, log_probs: _FloatArray, options: BeamSearchOptions | None = None) -> Hypothesis:
        """Takes the best label of each frame: no search, no language model.

        Args:
            log_probs: (T, V) floating point, natural logarithms (or logits, if the options say so).
            options: in place of the decoder's own; `input`, `temperature` and `allowed_characters` count.

        Returns:
            The text. Its scores are the log-probability of the one path; a character's confidence is its
            highest probability, a word's and the line's the product of their characters'.

        Raises:
            ValueError: as `decode`.
            TypeError: `log_probs` is no numpy array.
        """
        return self._core.decode_greedy(log_probs, self._prepare(options))

    def decode_greedy_batch(
        self, log_probs: Iterable[_FloatArray], options: BeamSearchOptions | None = None
    ) -> list[Hypothesis]:
        """`decode_greedy` for many lines, on the decoder's threads.

        Args:
            log_probs: one (T_i, V) array a line.
            options: in place of the decoder's own, for all lines.

        Returns:
            One hypothesis a line, in order.

        Raises:
            ValueError: as `decode`; the message names the line.
            TypeError: a line is no numpy array.
        """
        results = self._batch(self._core.decode_greedy_batch, log_probs, options)
        return [hypotheses[0] for hypotheses in _without_exceptions(results)]

    def start(self, options: BeamSearchOptions | None = None) -> DecoderStream:
        """Starts a line whose frames arrive bit by bit.

        Args:
            options: in place of the decoder's own.

        Returns:
            A stream: `push` the frames, ask for the `best` so far, `finish`. However the frames are cut into
            chunks, the result is the one that `decode` gives for the whole.

        Raises:
            ValueError: an option is out of range.
        """
        return self._core.start(self._prepare(options))

    def _batch(
        self,
        decode: Callable[[list[_FloatArray], _core.PreparedOptions], list[_Item]],
        log_probs: Iterable[_FloatArray],
        options: BeamSearchOptions | None,
    ) -> list[_Item]:
        lines, prepared = list(log_probs), self._prepare(options)
        step = _LINES_AT_A_TIME * self._threads
        results: list[_Item] = []
        for start in range(0, len(lines), step):
            results += decode(lines[start : start + step], prepared)
        return results

    def _prepare(self, options: BeamSearchOptions | None) -> _core.PreparedOptions:
        if options is None:
            return self._default
        # A caller with many hotwords sends the same object for each line: it is made ready once.
        known, prepared = self._latest
        if known is not options and known != options:
            _require_options(options)
            prepared = self._core.prepare(options)
            self._latest = (options, prepared)
        return prepared


def _require_options(options: object) -> None:
    if not isinstance(options, BeamSearchOptions):
        raise TypeError(f"options must be BeamSearchOptions, got {type(options).__name__}")


def _without_exceptions(results: Sequence[_Result | ValueError | TypeError | MemoryError]) -> list[_Result]:
    good: list[_Result] = []
    for index, result in enumerate(results):
        if isinstance(result, Exception):
            raise type(result)(f"item {index}: {result}")
        good.append(result)
    return good
