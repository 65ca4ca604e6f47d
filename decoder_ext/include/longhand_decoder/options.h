// What a beam search may be told. Every field says its unit; the Python class of the same name has the same
// fields.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace longhand {

// How the probabilities of the paths that spell the same prefix are joined.
enum class PathMerge {
    kSum,  // log-add: the probability of the text
    kMax,  // the best single path
};

// What the numbers handed to the decoder are. Declared by the caller, never guessed.
enum class InputKind {
    kLogProbs,  // natural logarithms of probabilities: at most 0
    kLogits,    // any finite numbers; a log-softmax makes them log-probabilities
};

// Where a word ends for the word language model.
enum class WordSplitting {
    kLetters,  // at spaces and between letters, digits and punctuation; apostrophes inside words are kept
    kSpaces,   // at spaces only
};

// A word or phrase that the reader expects.
struct Hotword {
    std::string text;  // UTF-8, one word or several with single spaces between
    double boost;      // added to the score for each occurrence as whole words, natural log
};

struct BeamSearchOptions {
    // No weight, bonus, penalty, boost or confidence_scale may be larger, whatever its sign.
    static constexpr double kLargestWeight = 1e6;

    int beam_width = 50;          // prefixes kept after a frame, >= 1
    double beam_threshold = -10;  // a prefix scored below best + this is dropped, natural log, <= 0
    double token_threshold =
        -6;  // a label with a lower log-probability in a frame starts no prefix there, <= 0
    // true: such a label is impossible in that frame, also as a blank or a repeat (pyctcdecode's way).
    bool hard_token_threshold = false;
    int max_tokens_per_frame = 0;  // at most this many labels start new prefixes in a frame; 0: no limit
    double temperature = 1.0;      // 1e-3 to 1e3; log-probabilities become log_softmax(input / temperature)
    InputKind input = InputKind::kLogProbs;
    PathMerge path_merge = PathMerge::kSum;
    // true: of prefixes that the models can no longer tell apart only the best one is kept, so that a beam
    // reaches further for the best text; alternatives and confidences know less of what lies far back.
    // Approximate: the best text and the scores may differ slightly from those of the search without it.
    bool merge_histories = false;

    double word_weight = 0.3;           // alpha: multiplies the word model's natural log-probability, >= 0
    double word_bonus = 0.5;            // beta: added for each token of the word model, natural log
    double unknown_word_penalty = 3.5;  // subtracted for each word outside the vocabulary, natural log, >= 0
    // While an unknown word goes on it costs this instead, natural log, >= 0; where the word is longer than
    // kUsualWordLength, in proportion to its length. Not set: unknown_word_penalty from the first character
    // on.
    static constexpr double kUsualWordLength = 6.0;
    std::optional<double> open_unknown_penalty;
    double character_weight = 0.35;  // multiplies the character model's natural log-probability, >= 0
    // >= 0: label probabilities are divided by the decoder's label priors to the power of this times
    // character_weight, since the character model brings its own. Counts only where there are priors and a
    // character model.
    double prior_weight = 1.0;
    double character_bonus = 0.0;  // added for each character, natural log
    // 0 to 1: what both models and their bonuses say of figures counts this much. Figures are digits, the
    // numbers they make and a character behind one; in codes such as "SW1A 2AA" also a word in capitals right
    // beside a digit, with its penalty, and its characters where they follow the digit; the priors of digits
    // too. Text knows little of the next telephone number. Does nothing where words end at spaces only.
    double figures_weight = 1.0;
    WordSplitting word_splitting = WordSplitting::kLetters;
    // true: a line whose letters are nearly all capitals is weighed by the models as if they were small, and
    // still comes out in capitals; a small letter is made unlikely there, and hotwords stand for either. Not
    // in streams, which see no whole line, nor with a closed lexicon.
    bool fold_capitals = false;
    bool closed_lexicon = false;  // true: only words of the vocabulary may be read
    // true: both models start in the context <s>; false: where the text goes on, the character model behind a
    // space.
    bool sentence_start = false;
    bool sentence_end = false;  // true: both models score </s> at the end
    std::string context;        // text that stands before the line (UTF-8): both models start behind it

    std::vector<Hotword> hotwords;
    bool restrict_characters = false;  // true: only `allowed_characters` may be read
    std::string allowed_characters;    // UTF-8

    int alternatives = 1;           // hypotheses returned, best first, >= 1
    double confidence_scale = 1.0;  // confidences are softmax(this * score) over the beam, > 0
    // false: characters and words have confidence 0; with hundreds of alternatives these take most of the
    // time.
    bool span_confidences = true;
};

// Throws std::invalid_argument naming the first field that is out of range.
void validate(const BeamSearchOptions& options);

}  // namespace longhand
