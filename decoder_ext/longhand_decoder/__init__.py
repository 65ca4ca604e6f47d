"""CTC beam search with word and character n-gram language models, in compiled C++.

Example:
    from longhand_decoder import CtcBeamSearchDecoder, NgramLanguageModel

    decoder = CtcBeamSearchDecoder(labels, word_model=NgramLanguageModel("word.klm"))
    best = decoder.decode(log_probs)[0]
    print(best.text, best.confidence)
"""

from longhand_decoder._core import (
    CharacterSpan,
    DecoderStream,
    Hypothesis,
    LanguageModelError,
    NgramLanguageModel,
    WordSpan,
    tokenize_words,
)
from longhand_decoder.compat import BeamSearchDecoderCTC, OutputBeam, build_ctcdecoder
from longhand_decoder.decoder import CtcBeamSearchDecoder
from longhand_decoder.options import UNLIMITED, BeamSearchOptions

__all__ = [
    "UNLIMITED",
    "BeamSearchDecoderCTC",
    "BeamSearchOptions",
    "CharacterSpan",
    "CtcBeamSearchDecoder",
    "DecoderStream",
    "Hypothesis",
    "LanguageModelError",
    "NgramLanguageModel",
    "OutputBeam",
    "WordSpan",
    "build_ctcdecoder",
    "tokenize_words",
]
