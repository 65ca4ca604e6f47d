// An n-gram language model of KenLM: any of its binary kinds, or ARPA text, up to order 6.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "longhand_decoder/options.h"

namespace longhand {

// The file cannot be used as a language model; the message names it and what is wrong.
class LanguageModelError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

class NgramLanguageModel {
  public:
    // Maps the file into memory or reads it (binary), or builds the model from it (ARPA). A mapped file costs
    // memory once for all processes, but must not be written to while it is in use.
    explicit NgramLanguageModel(const std::string& path, bool mapped = true);
    ~NgramLanguageModel();
    NgramLanguageModel(const NgramLanguageModel&) = delete;
    NgramLanguageModel& operator=(const NgramLanguageModel&) = delete;

    // Natural log-probability of the tokens (UTF-8), each given those before it; 0 counts as e^-10000.
    double score(const std::vector<std::string>& tokens, bool bos, bool eos) const;
    bool contains(const std::string& token) const;
    int order() const;
    std::size_t vocabulary_size() const;
    const std::string& path() const;

    // For the decoder's own files.
    class Implementation;
    const Implementation& implementation() const { return *implementation_; }

  private:
    std::unique_ptr<const Implementation> implementation_;
};

// The tokens of the word model in `text` (UTF-8). Runs of letters, apostrophes between letters included, and
// runs of digits are one token each, every other character but space is one of its own; or, if so wanted, all
// that stands between spaces.
std::vector<std::string> tokenize_words(const std::string& text,
                                        WordSplitting splitting = WordSplitting::kLetters);

}  // namespace longhand
