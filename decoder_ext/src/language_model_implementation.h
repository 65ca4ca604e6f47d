// What the decoder's own files may know of a language model: KenLM's types stay in here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "lexicon.h"
#include "lm/state.hh"
#include "lm/virtual_interface.hh"
#include "longhand_decoder/language_model.h"

namespace longhand {

class NgramLanguageModel::Implementation {
  public:
    explicit Implementation(const std::string& path);

    // Natural log-probability of `word` behind `in`; `out` becomes the state behind it.
    float score(const lm::ngram::State& in, std::uint32_t word, lm::ngram::State& out) const;
    lm::ngram::State start(bool bos) const;
    std::uint32_t index(const std::string& token) const { return model_->BaseVocabulary().Index(token); }
    std::uint32_t unknown() const { return model_->BaseVocabulary().NotFound(); }
    std::uint32_t end_of_sentence() const { return model_->BaseVocabulary().EndSentence(); }
    int order() const { return model_->Order(); }
    const std::string& path() const { return path_; }
    const Lexicon& lexicon() const { return lexicon_; }

  private:
    std::string path_;
    std::unique_ptr<const lm::base::Model> model_;
    Lexicon lexicon_;  // the vocabulary without <unk>, <s>, </s>
};

// The part of a model that decoding has met so far, as an automaton: states with numbers, and one arc for
// each word that was asked for behind a state. Beams of one line, and lines of one language, ask for the same
// few thousand arcs again and again; a look-up here is several times cheaper than in the model. For one
// thread at a time.
class ModelAutomaton {
  public:
    struct Arc {
        float log_probability;  // natural
        std::uint32_t target;
    };

    explicit ModelAutomaton(const NgramLanguageModel::Implementation& model);

    std::uint32_t state(const lm::ngram::State& state);
    Arc step(std::uint32_t state, std::uint32_t word) {
        const std::uint64_t key = (static_cast<std::uint64_t>(state) << 32) | word;
        for (std::size_t i = slot(key);; i = (i + 1) & mask_) {
            if (arcs_[i].key == key) return arcs_[i].arc;
            if (arcs_[i].key == kEmpty) return add(key);
        }
    }
    const lm::ngram::State& state(std::uint32_t number) const { return states_[number]; }
    // Forgets everything if more than `limit` arcs are held. State numbers given out before are void then.
    void trim(std::size_t limit);

  private:
    struct Entry {
        std::uint64_t key;
        Arc arc;
    };
    struct Hash {
        std::size_t operator()(const lm::ngram::State& s) const { return lm::ngram::hash_value(s, s.length); }
    };
    static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

    std::size_t slot(std::uint64_t key) const { return (key * 0x9E3779B97F4A7C15u >> 32) & mask_; }
    Arc add(std::uint64_t key);
    void clear();
    void grow();

    const NgramLanguageModel::Implementation& model_;
    std::vector<Entry> arcs_;
    std::size_t mask_ = 0, used_ = 0;
    std::vector<lm::ngram::State> states_;
    std::unordered_map<lm::ngram::State, std::uint32_t, Hash> numbers_;
};

}  // namespace longhand
