// What is fixed when a decoder is made, and what is fixed when its options are known. Both are read-only
// afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hotwords.h"
#include "language_model_implementation.h"
#include "lexicon.h"
#include "longhand_decoder/decoder.h"
#include "tokenizer.h"

namespace longhand {

// The letters that the models are asked for where the network's labels stand.
enum class LetterCase {
    kAsWritten,
    kOther,  // "e" for "E" and "E" for "e": for a line in capitals
};

// The labels, as the search and the language models see them.
class LabelSet {
  public:
    explicit LabelSet(const std::vector<std::string>& labels,
                      LetterCase letter_case = LetterCase::kAsWritten);

    std::size_t size() const { return names_.size(); }
    std::uint32_t blank() const { return blank_; }
    // 0 for the blank, and for size(): the last label of the empty prefix.
    char32_t code_point(std::uint32_t label) const { return code_points_[label]; }
    CharacterClass character_class(std::uint32_t label, WordSplitting splitting) const {
        return splitting == WordSplitting::kLetters ? classes_[label] : by_spaces_[label];
    }
    // What the network's labels are, whatever the models are asked for.
    const std::vector<std::string>& names() const { return names_; }
    bool is_capital(std::uint32_t label) const { return written_[label] == Written::kCapital; }
    bool is_small(std::uint32_t label) const { return written_[label] == Written::kSmall; }

  private:
    std::vector<std::string> names_;
    std::vector<char32_t> code_points_;
    std::vector<CharacterClass> classes_;
    std::vector<CharacterClass> by_spaces_;  // everything but a space counts as a letter
    enum class Written : std::uint8_t { kCapital, kSmall, kNeither };
    std::vector<Written> written_;
    std::uint32_t blank_ = 0;
};

struct DecoderModel {
    explicit DecoderModel(DecoderConfig config, LetterCase letter_case = LetterCase::kAsWritten);

    const NgramLanguageModel::Implementation* word_model() const {
        return config.word_model ? &config.word_model->implementation() : nullptr;
    }
    const NgramLanguageModel::Implementation* character_model() const {
        return config.character_model ? &config.character_model->implementation() : nullptr;
    }

    DecoderConfig config;
    LetterCase letter_case;
    LabelSet labels;
    const Lexicon* lexicon = nullptr;  // the known words; null if there are neither a word model nor a list
    const std::string* split_word = nullptr;  // the first word of the list that is several tokens
    // Per label: its token in the character model, and as a token of its own in the word model.
    std::vector<std::uint32_t> character_tokens;
    std::vector<std::uint32_t> single_tokens;  // Lexicon::kNoWord if unknown
    // ... its log prior less the mean over what the network says, so that a line's score stays about what it
    // is; 0 for the blank. Empty: no priors.
    std::vector<float> log_priors;
    // ... and its character as the lexicon knows it; empty without one.
    std::vector<Lexicon::Symbol> symbols;

  private:
    void read_priors();

    Lexicon own_lexicon_;
};

// A space in the files of a character model.
inline constexpr const char* kSpaceToken = "\u2581";

class PreparedOptions {
  public:
    PreparedOptions(const DecoderModel& model, const BeamSearchOptions& options);

    BeamSearchOptions options;
    const DecoderModel* model;
    HotwordAutomaton hotwords;
    std::vector<Lexicon::Symbol> hotword_symbols;  // per label, of the hotwords' lexicon; empty without any
    std::vector<CharacterClass> classes;           // per label; behind the last, of the empty prefix
    std::vector<bool> allowed;                     // per label; empty: all
    std::vector<float> shift;                      // per label, subtracted from the input; empty: nothing is
    bool uses_words = false;                       // the word model, or a lexicon, has a say in the score
    bool uses_characters = false;
    lm::ngram::State word_start{};
    lm::ngram::State character_start{};
    bool folds = false;  // lines in capitals are read with for_capitals()

    // The same for a line in capitals, with the decoder's model of the other case. Made for the first such
    // line: few calls meet one, and a long list of hotwords takes milliseconds.
    const PreparedOptions& for_capitals(const DecoderModel& folded) const;

  private:
    mutable std::once_flag folded_once_;
    mutable std::unique_ptr<const PreparedOptions> folded_;

    void read_shift();
    void read_context();
};

}  // namespace longhand
